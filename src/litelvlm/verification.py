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
"""A folder of a model looked through from its files to one forward pass."""

import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .evaluation.protocol import ANSWER
from .hub_cards.publish import check_folder, describe_file
from .modeling.modeling_litelvlm import LiteLVLMForSegmentation
from .modeling.processing_litelvlm import LiteLVLMProcessor

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_hashes(folder: Path) -> list[dict[str, Any]]:
    """
    Reads every file of weights, and compares its hash with that of the Hub where the download kept it.

    Returns:
        For each file `name`, `size` in bytes, `sha256`, and `expected`, which is `None` where nothing says it.

    Raises:
        ValueError: a file is another one than the Hub's.
    """
    files = []
    for path in sorted(folder.glob("*.safetensors")):
        file, expected = describe_file(path), _hash_of_hub(path)
        if expected not in (None, file["sha256"]):
            raise ValueError(
                f"{str(path)!r} is damaged: its SHA-256 is {file['sha256']}, the Hub's {expected}; download it anew."
            )
        files.append({"name": path.name} | file | {"expected": expected})
    return files


def check_forward(model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor) -> None:
    """
    One forward pass on a grey image, with a mask where the model makes masks.

    Raises:
        ValueError: it gives numbers that are not finite.
    """
    answers = None if model.config.sam_config is None else [[ANSWER]]
    # Of a size that has more visual tokens than a budget, where these depend on the image
    inputs = processor(Image.new("RGB", (640, 480), "gray"), [["the object"]], answers=answers).to(model.device)
    with torch.inference_mode():
        output = model(**{name: value for name, value in inputs.items() if name != "labels"})
    found = [output.logits, *(output.pred_masks or [])]
    if not all(values.isfinite().all() for values in found):
        raise ValueError(
            f"A forward pass in {model.dtype} gives numbers that are not finite; take another dtype, or save or "
            "convert the model anew."
        )


def check_files(folder: Path) -> list[dict[str, Any]]:
    """What can be told before anything is loaded: [`check_folder`] without the card, and [`check_hashes`]."""
    check_folder(folder, with_card=False)
    return check_hashes(folder)


def _hash_of_hub(path: Path) -> str | None:
    """In the Hub's cache a file of weights is a link to its hash; beside a download into a folder stand notes."""
    name = path.resolve().name
    notes = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if notes.is_file():  # the commit, the hash and the time, a line each
        name = [*notes.read_text(encoding="utf-8").splitlines(), "", ""][1]
    return name if _SHA256.fullmatch(name) else None


__all__ = ["check_files", "check_forward", "check_hashes"]
