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
"""A CLIP to diagnose: that of a LiteLVLM model, whose language model is not read, or one of Transformers by itself."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    SiglipModel,
)

from ..configuration.configuration_litelvlm import LiteLVLMConfig, num_patches_per_side
from ..hub import check_reachable
from ..modeling.modeling_litelvlm import LiteLVLMModel
from ..modeling.processing_litelvlm import LiteLVLMProcessor

_PLAIN = {"clip": CLIPModel, "siglip": SiglipModel}


class _ClipOfModel(LiteLVLMModel):
    """A whole model without the layers of its language model and without SAM, whose weights are not read."""

    _keys_to_ignore_on_load_unexpected = [
        r"language_model\.layers\.",
        r"^lm_head\.",
        r"^sam\.",
        r"^seg_head\.",
    ]


def load_clip(name: str, dtype: str | torch.dtype = "auto") -> tuple[LiteLVLMModel, LiteLVLMProcessor]:
    """
    The CLIP in a LiteLVLM folder, of whose language model no layer is read; or a CLIP or SigLIP of Transformers by
    itself.

    Raises:
        ValueError: neither can be loaded.
    """
    try:
        check_reachable(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type in _PLAIN:
            return _load_plain_clip(name, _PLAIN[config.model_type], dtype)
        if config.model_type != "litelvlm":
            raise ValueError(f"it is a {config.model_type!r} model; allowed are 'litelvlm', 'clip' and 'siglip'")
        config.get_text_config().num_hidden_layers = 0
        model = _ClipOfModel.from_pretrained(name, config=config, dtype=dtype)
        processor = LiteLVLMProcessor.from_pretrained(name, trust_remote_code=False)
        processor.check_fits(model.config)
    except (OSError, ValueError) as error:
        raise ValueError(f"The model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if model.config.has_varying_lengths:
        raise ValueError(f"{name!r} has images of different numbers of patches, no one map; name its CLIP instead.")
    processor.with_masks = False
    return model.eval(), processor


def _load_plain_clip(name: str, kind: Any, dtype: str | torch.dtype) -> tuple[LiteLVLMModel, LiteLVLMProcessor]:
    clip = kind.from_pretrained(name, dtype=dtype)
    vision, text = clip.config.vision_config, clip.config.text_config
    is_siglip = isinstance(clip, SiglipModel)
    if not is_siglip:
        vision.projection_dim = text.projection_dim = clip.config.projection_dim
    llama = LlamaConfig(num_hidden_layers=0, hidden_size=8, num_attention_heads=1, vocab_size=8, intermediate_size=8)
    backbone = LlavaConfig(
        vision_config=vision,
        text_config=llama,
        image_token_id=0,
        vision_feature_select_strategy="full" if is_siglip else "default",
    )
    num_patches = num_patches_per_side(vision) ** 2
    config = LiteLVLMConfig(
        backbone_config=backbone,
        guide_config=clip.config if is_siglip else text,
        num_retained_tokens=num_patches,
        dtype=clip.config.dtype,
    )
    model = LiteLVLMModel(config).to(clip.dtype)
    model.backbone.vision_tower = clip.vision_model
    model.guide.take_from(clip)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    image_processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    # The processor needs a tokenizer for prompts too; no language model reads these
    processor = LiteLVLMProcessor(
        image_processor,
        tokenizer,
        tokenizer,
        num_image_tokens=num_patches,
        with_masks=False,
        guide_length=text.max_position_embeddings if is_siglip else None,
    )
    return model.eval(), processor


__all__ = ["load_clip"]
