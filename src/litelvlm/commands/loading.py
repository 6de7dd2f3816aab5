# Copyright 2026 The LiteLVLM authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What commands load: a model on its device, numbers of tokens, and the images of datasets."""

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch

from .. import registration  # noqa: F401  (methods are registered by name)
from ..benchmark.roofline import matmul_rate
from ..configuration.configuration_litelvlm import LiteLVLMConfig, check_choice
from ..conversion.convert import DTYPES
from ..data.registry import load_split, splits_of
from ..data.samples import ReferringImage
from ..hub import check_reachable
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..tiny import TINY_MODEL
from ..writing import check_separate


def pick_device(name: str | None) -> torch.device:
    """
    The device of that name, or by default the accelerator where there is one, else the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return torch.device("cpu") if found is None else found
    counts = {"cpu": 1} if found is None else {"cpu": 1, found.type: torch.accelerator.device_count()}
    here = [f"{kind}{index}" for kind, count in counts.items() for index in ["", *(f":{i}" for i in range(count))]]
    # PyTorch itself takes any number of a CPU, and fails at others only as they are used
    if name not in here:
        reason = " (no GPU is available)" if found is None else ""
        raise ValueError(f"--device is {name!r}; allowed here: {', '.join(here)}{reason}.")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device | None = None) -> torch.dtype | Literal["auto"]:
    """
    The dtype of that name, or `"auto"`. For a model that is to run on a device `"auto-fast"` is allowed too, which
    is its [`fastest_dtype`].

    Raises:
        ValueError: another name.
    """
    if name == "auto-fast":
        if device is None:
            raise ValueError(
                "--dtype is 'auto-fast', which is for a model that runs right here and nowhere else; allowed are "
                f"{', '.join(map(repr, DTYPES))}."
            )
        return fastest_dtype(device)
    allowed = DTYPES if device is None else (*DTYPES, "auto-fast")
    return "auto" if check_choice("--dtype", name, allowed) == "auto" else getattr(torch, name)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """
    bfloat16 where the device multiplies matrices in it at least half as fast again as in float32, else float32;
    standard error says which.
    """
    side = 4096 if device.type == "cuda" else 512
    wide, narrow = (matmul_rate(device, dtype, side, num_runs=3) for dtype in (torch.float32, torch.bfloat16))
    fastest = torch.bfloat16 if narrow > 1.5 * wide else torch.float32
    ratio = f"matrix products in bfloat16 are {narrow / wide:.2g} times as fast as in float32 on {device}"
    print(f"litelvlm: --dtype auto-fast is {str(fastest).removeprefix('torch.')}: {ratio}.", file=sys.stderr)
    return fastest


def load_model(options: argparse.Namespace, device: torch.device) -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    """
    Model and processor as the flags of a command say, on the device unless `--device-map` spreads the model.

    Raises:
        ValueError: names what cannot be loaded.
    """
    name, dtype = str(options.model or TINY_MODEL), pick_dtype(options.dtype, device)
    try:
        check_reachable(name)
        model = LiteLVLMForSegmentation.from_pretrained(name, dtype=dtype, device_map=options.device_map)
        # Without this Transformers asks about a repository's code, on stdout
        processor = LiteLVLMProcessor.from_pretrained(name, trust_remote_code=False)
        processor.check_fits(model.config)
    except (OSError, ValueError) as error:
        raise ValueError(f"The model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return (model if options.device_map else model.to(device)), processor


def parse_budget(text: str, config: LiteLVLMConfig) -> int | None:
    """`"85"`, `"192/576"` as a share of the model's visual tokens, or `"all"`, which is `None`."""
    if text == "all":
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"--num-retained-tokens holds {text!r}; allowed are numbers, shares such as 192/576, and all."
        ) from None
    if "/" in text and config.has_external_guide:
        raise ValueError(
            f"--num-retained-tokens holds {text!r}, but the images of a {config.backbone_config.model_type!r} have "
            "different numbers of tokens; allowed are numbers, and all."
        )
    retained = int(value) if "/" not in text and value.denominator == 1 else round(value * config.num_patches)
    config.resolve_pruning(retained)
    return retained


def check_data_is_kept(options: argparse.Namespace, *names: str) -> None:
    """Raises ValueError if a file that `--output` gets is one that `--data` reads."""
    for data in map(Path, options.data):
        for name in names:
            for path in (data, data / name):
                check_separate({"--data": path, f"the {name} of --output": options.output / name})


def load_data(options: argparse.Namespace, config: LiteLVLMConfig) -> dict[tuple[str, str], list[ReferringImage]]:
    """The images of every dataset and split that the flags name; RefShapes is drawn at twice the model's size."""
    if options.images is not None and options.images < 1:
        raise ValueError(f"--images is {options.images}; allowed are numbers of at least 1.")
    settings: dict[str, Any] = {"num_images": options.images, "seed": options.seed}
    settings["size"] = 2 * config.backbone_config.vision_config.image_size
    return {
        (name, split): load_split(name, split, options.data_root, **settings)
        for name in options.data
        for split in options.split or splits_of(name)
    }


__all__ = ["check_data_is_kept", "load_data", "load_model", "parse_budget", "pick_device", "pick_dtype"]
