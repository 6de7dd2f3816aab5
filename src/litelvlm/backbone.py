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
"""Any CLIP-based LVLM of Transformers, wrapped in one call."""

import os
from typing import Any

from transformers import PreTrainedModel

from .modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration
from .modeling.processing_litelvlm import LiteLVLMProcessor

# Options that say which files are read: the processor's are those of the model
_FOR_BOTH = ("cache_dir", "force_download", "local_files_only", "revision", "token", "trust_remote_code")


def from_backbone(
    backbone: str | os.PathLike | PreTrainedModel, guide: str | os.PathLike | None = None, **kwargs: Any
) -> tuple[LiteLVLMForConditionalGeneration, LiteLVLMProcessor]:
    """
    Wraps an LVLM in Transformers' format, without conversion.

    Args:
        backbone (`str` or [`PreTrainedModel`]): Hub id or folder, such as `"llava-hf/llava-1.5-7b-hf"`, or a model
            that is loaded already, whose processor is looked for under its `name_or_path`.
        guide (`str`, *optional*): Hub id or folder of its CLIP, by default OpenAI's of the vision tower's sizes.
        kwargs: as in [`LiteLVLMForConditionalGeneration.from_backbone`], such as `num_retained_tokens=192` or
            `device_map="auto"`.

    Returns:
        The model and its processor.

    Raises:
        ValueError: as there.
    """
    reading = {option: kwargs[option] for option in _FOR_BOTH if option in kwargs}
    # First what is small: its errors come before a large model is loaded
    processor = LiteLVLMProcessor.from_backbone(backbone, guide, **reading)
    return LiteLVLMForConditionalGeneration.from_backbone(backbone, guide, **kwargs), processor


__all__ = ["from_backbone"]
