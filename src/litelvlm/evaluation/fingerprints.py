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
"""Hashes by which an evaluation that goes on tells whether model and data are still the same."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch

from ..data.samples import ReferringImage


def fingerprint_of_model(model: torch.nn.Module) -> str:
    """A hash of a model's configuration, types and first weights of every tensor: other weights, another hash."""
    tensors: list[Any] = [
        (name, str(tensor.dtype), list(tensor.shape), tensor.detach().flatten()[:4].float().cpu().tolist())
        for name, tensor in model.named_parameters()
    ]
    # Neither the folder nor the version of Transformers changes what is measured
    config = model.config.to_dict()
    unlike = ("_name_or_path", "transformers_version")
    return _hash([{name: value for name, value in config.items() if name not in unlike}, tensors])


def fingerprint_of_images(entries: Sequence[ReferringImage]) -> str:
    """A hash of images by id and of what is asked of them."""
    asked = [(entry.id, [(e.id, e.text, e.question_template) for e in entry.expressions]) for entry in entries]
    return _hash(asked)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


__all__ = ["fingerprint_of_images", "fingerprint_of_model"]
