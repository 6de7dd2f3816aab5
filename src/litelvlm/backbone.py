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
"""Any LVLM of Transformers with CLIP's or SigLIP's vision tower, wrapped in one call."""

import os
from typing import Any

from transformers import PreTrainedModel

from .modeling.hub_litelvlm import LOADING_OPTIONS
from .modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation
from .modeling.processing_litelvlm import LiteLVLMProcessor


def from_backbone(
    backbone: str | os.PathLike | PreTrainedModel,
    guide: str | os.PathLike | None = None,
    *,
    processor: str | os.PathLike | None = None,
    sam: str | os.PathLike | None = None,
    **kwargs: Any,
) -> tuple[LiteLVLMForConditionalGeneration, LiteLVLMProcessor]:
    """
    Wraps an LVLM in Transformers' format, without conversion.

    Args:
        backbone (`str` or [`PreTrainedModel`]): Hub id or folder, such as `"llava-hf/llava-1.5-7b-hf"`, or a model
            that is loaded already.
        guide (`str`, *optional*): Hub id or folder of its CLIP or SigLIP, or of any CLIP for a Qwen-VL; by default
            OpenAI's CLIP of the vision tower's sizes, for a Qwen-VL that of ViT-L/14 at 336 pixels.
        processor (`str`, *optional*): Hub id or folder of the LVLM that the processor is read from, for a loaded model
            that does not know its own; by default the backbone, of a loaded model its `name_or_path`.
        sam (`str`, *optional*): Hub id or folder of a SAM or SAM 2, for masks that are yet to be learned, as in
            [`LiteLVLMForSegmentation.from_backbone`]; [SEG] is added to the tokenizer.
        kwargs: as in [`LiteLVLMForConditionalGeneration.from_backbone`], such as `num_retained_tokens=192` or
            `device_map="auto"`.

    Returns:
        The model and its processor.

    Raises:
        ValueError: as there, and as in [`LiteLVLMProcessor.from_backbone`].
    """
    # Which files are read is the same for the processor as for the model
    reading = {option: kwargs[option] for option in LOADING_OPTIONS if option in kwargs}
    # First what is small: its errors come before a large model is loaded
    made = LiteLVLMProcessor.from_backbone(backbone if processor is None else processor, guide, sam=sam, **reading)
    if sam is None:
        return LiteLVLMForConditionalGeneration.from_backbone(backbone, guide, **kwargs), made
    seg_token_id = made.tokenizer.convert_tokens_to_ids("[SEG]")
    model = LiteLVLMForSegmentation.from_backbone(backbone, guide, sam=sam, seg_token_id=seg_token_id, **kwargs)
    return model, made


__all__ = ["from_backbone"]
