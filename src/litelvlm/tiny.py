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
"""The embedded model `litelvlm-tiny`: small, trained from scratch, shipped with the package."""

from pathlib import Path
from typing import Any

from .modeling.modeling_litelvlm import LiteLVLMForSegmentation
from .modeling.processing_litelvlm import LiteLVLMProcessor

_ASSETS = Path(__file__).parent / "assets"

TINY_MODEL = _ASSETS / "litelvlm-tiny"
"""Folder of the embedded model, laid out like any other checkpoint."""

EXAMPLE_IMAGE = _ASSETS / "example.png"
"""An image of coloured shapes, which the embedded model understands."""


def load_tiny(**kwargs: Any) -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    """
    Loads `litelvlm-tiny` and its processor, without any download.

    Args:
        kwargs: those of `from_pretrained`, such as `num_retained_tokens=64` or `device_map="auto"`.
    """
    model = LiteLVLMForSegmentation.from_pretrained(TINY_MODEL, **kwargs)
    return model, LiteLVLMProcessor.from_pretrained(TINY_MODEL)


__all__ = ["EXAMPLE_IMAGE", "TINY_MODEL", "load_tiny"]
