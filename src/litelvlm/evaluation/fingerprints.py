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
"""Hashes by which an evaluation that goes on tells whether model, processor and data are still the same."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate.utils import align_module_device
from PIL import Image

from ..data.samples import Referring, ReferringImage
from ..modeling.processing_litelvlm import LiteLVLMProcessor

# Neither where a model or processor came from nor the version of Transformers changes what is measured
_UNLIKE = ("_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only")


def fingerprint_of_model(model: torch.nn.Module) -> str:
    """A hash of a model's configuration and of every byte of its weights."""
    configs = [model.config.to_dict(), model.generation_config.to_dict()]
    digest = _digest([_without_origin(config) for config in configs])
    for module_name, module in model.named_modules():
        with align_module_device(module):  # brings in what was offloaded
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in own:
                digest.update(f"{module_name}.{name} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_processor(processor: LiteLVLMProcessor) -> str:
    """A hash of everything that saving a processor writes, but the code."""
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".py")
        return _digest([(path.relative_to(folder).as_posix(), _saved(path)) for path in paths]).hexdigest()


def fingerprint_of_images(entries: Sequence[ReferringImage]) -> str:
    """A hash of images by id and of what is asked of them."""
    asked = [(entry.id, [(e.id, e.text, e.question_template) for e in entry.expressions]) for entry in entries]
    return _digest(asked).hexdigest()


def fingerprint_of_content(
    image: Image.Image | None, asked: Sequence[tuple[Referring, np.ndarray | None]], wrong: Sequence[str]
) -> str:
    """A hash of what `read_masks` gives of one image: its pixels, its masks, and what could not be read."""
    digest = _digest([list(wrong), None if image is None else image.size])
    if image is not None:
        digest.update(image.tobytes())
    for expression, mask in asked:
        digest.update(repr((expression.id, None if mask is None else mask.shape)).encode())
        digest.update(b"" if mask is None else np.ascontiguousarray(mask))
    return digest.hexdigest()


def _digest(value: Any) -> Any:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest


def _saved(path: Path) -> Any:
    text = path.read_bytes()
    return _without_origin(json.loads(text)) if path.suffix == ".json" else text.hex()


def _without_origin(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _UNLIKE}


__all__ = ["fingerprint_of_content", "fingerprint_of_images", "fingerprint_of_model", "fingerprint_of_processor"]
