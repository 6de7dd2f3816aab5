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
"""What is installed and what works on this machine, told without paths, names of users or secrets."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Any

import torch
from packaging.requirements import Requirement
from transformers.utils import is_torch_bf16_available_on_device

from . import registration  # noqa: F401  (so that no question about code of its own is asked)
from .data.refshapes import RefShapes
from .tiny import load_tiny

# Extras for who works on the package itself
_DEVELOPMENT = ("test", "dev", "docs")
# Libraries that no extra brings, as they need a GPU
_OF_GPUS = ("bitsandbytes", "flash_attn", "triton")
# What each feature imports
_FEATURES = {
    "flash attention 2": "flash_attn",
    "quantisation by bitsandbytes": "bitsandbytes",
    "quantisation by torchao": "torchao",
    "guides of OpenCLIP": "open_clip",
    "image processing by torchvision": "torchvision",
    "masks in COCO's format": "pycocotools.mask",
    "plots": "matplotlib.figure",
    "data sets of the Hub": "datasets",
    "fine-tuning with LoRA": "peft",
}


def check_up() -> dict[str, Any]:
    """
    Returns:
        `versions` by library, `None` where it is missing; `devices`; `features` and `embedded_model` (by type of
        device) with the reason why it does not work, or `None`; `missing`, by extra what it would install.
    """
    required = list(_requirements())
    names = {requirement.name for requirement, _ in required} | set(_OF_GPUS)
    versions = {name: version_of(name) for name in sorted(names, key=str.lower)}
    missing: dict[str, list[str]] = {}
    for requirement, extra in required:
        found = versions[requirement.name]
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            missing.setdefault(extra, []).append(f"{requirement.name}{requirement.specifier}")
    devices = describe_devices()
    return {
        "versions": {
            "litelvlm": version_of("litelvlm"),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        }
        | versions,
        "devices": devices,
        "features": features(),
        "missing": missing,
        "embedded_model": {kind: try_embedded_model(kind) for kind in dict.fromkeys(d["type"] for d in devices)},
    }


def version_of(name: str) -> str | None:
    """The version of an installed library; `None` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_devices() -> list[dict[str, Any]]:
    """
    The CPU and every accelerator, with its memory in GiB where PyTorch tells it, and whether it computes in bfloat16
    by itself; a CPU that does not is slow in it.
    """
    devices: list[dict[str, Any]] = [
        {
            "type": "cpu",
            "name": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "bfloat16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        }
    ]
    if not torch.accelerator.is_available():
        return devices
    kind = torch.accelerator.current_accelerator().type
    bfloat16 = is_torch_bf16_available_on_device(kind)
    for index in range(torch.accelerator.device_count()):
        device: dict[str, Any] = {"type": kind, "bfloat16": bfloat16}
        if kind in ("cuda", "xpu"):
            properties = getattr(torch, kind).get_device_properties(index)
            device |= {"name": properties.name, "memory": round(properties.total_memory / 2**30, 1)}
        if kind == "cuda":
            device["runtime"] = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        if kind == "mps":
            device["memory"] = round(torch.mps.recommended_max_memory() / 2**30, 1)
        devices.append(device)
    return devices


def features() -> dict[str, str | None]:
    """Why a feature does not work here, or `None` where it does."""
    reasons = {"torch.compile": _why_not_compiled()} | {name: _why_not(module) for name, module in _FEATURES.items()}
    if not torch.accelerator.is_available():
        reasons["flash attention 2"] = "there is no GPU"
    return reasons


def try_embedded_model(device: str) -> str | None:
    """Why the embedded model does not find an object that it knows, or `None` where it does."""
    try:
        model, processor = load_tiny(dtype="auto")
        scene = RefShapes("testA", 1, size=256)[0]
        inputs = processor(scene.image, scene.expressions[0].text).to(device)
        with torch.inference_mode():
            output = model.to(device).segment(**inputs, answer="It is [SEG].", processor=processor)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        mask = processor.post_process_masks(output.pred_masks, *sizes)[0][0].cpu().numpy()
        iou = (mask & scene.masks[0]).sum() / (mask | scene.masks[0]).sum()
        return None if iou > 0.5 else f"the mask has an IoU of {iou:.2f} with the object"
    except Exception as error:  # whatever it is, it is what the report is for; its message may hold paths
        return f"fails with {type(error).__name__}"


def _requirements() -> Iterator[tuple[Requirement, str]]:
    """What the package and its extras require here, with the extra, `""` for the package itself."""
    for requirement in map(Requirement, requires("litelvlm") or []):
        marker = str(requirement.marker or "")
        extra = marker.partition('extra == "')[2].partition('"')[0]
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if applies and extra not in _DEVELOPMENT and requirement.name != "litelvlm":
            yield requirement, extra


def _why_not(module: str) -> str | None:
    """A library that is there, but was built for another PyTorch, fails as it is imported."""
    name = module.partition(".")[0]
    if find_spec(name) is None:
        return f"{name} is not installed"
    try:
        import_module(module)
    except Exception as error:
        return f"importing {name} fails with {type(error).__name__}"
    return None


def _why_not_compiled() -> str | None:
    """PyTorch compiles with Triton for GPUs and with a C++ compiler for CPUs."""
    if torch.accelerator.is_available() and find_spec("triton"):
        return None
    names = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    return None if any(map(shutil.which, names)) else "there is no C++ compiler (g++, clang++ or cl)"


__all__ = ["check_up", "describe_devices", "features", "try_embedded_model"]
