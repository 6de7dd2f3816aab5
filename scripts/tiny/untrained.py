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
"""What training begins with: both tokenizers, CLIP, and the whole model."""

import argparse

import torch
from position_waves import look_at_neighbours, position_waves
from recipe import build_guide_tokenizer, build_processor, build_tokenizer, clip_config, corpus, lvlm_config
from torch import nn
from transformers import AutoTokenizer, CLIPModel, GenerationConfig, PreTrainedTokenizerFast

from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor


def build_tokenizers(options: argparse.Namespace) -> None:
    """Both tokenizers, by whichever stage comes first."""
    if (options.output / "tokenizer").exists():
        return
    texts = corpus()
    build_guide_tokenizer(texts).save_pretrained(options.output / "guide_tokenizer")
    build_tokenizer(texts).save_pretrained(options.output / "tokenizer")


def untrained_clip(options: argparse.Namespace) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """CLIP, and its tokenizer."""
    guide_tokenizer = AutoTokenizer.from_pretrained(options.output / "guide_tokenizer")
    torch.manual_seed(options.seed)
    # Eager attention is the faster one here, in bfloat16 on a CPU with short sequences
    clip = CLIPModel._from_config(clip_config(guide_tokenizer), attn_implementation="eager")
    with torch.no_grad():
        positions = clip.vision_model.embeddings.position_embedding.weight
        positions[1:] = position_waves(positions.shape[1], amplitude=0.5)
        look_at_neighbours(clip.vision_model)
    return clip, guide_tokenizer


def untrained_lvlm(options: argparse.Namespace) -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    """The whole model with a CLIP that is not trained, and its processor."""
    tokenizer, guide_tokenizer = (
        AutoTokenizer.from_pretrained(options.output / name) for name in ("tokenizer", "guide_tokenizer")
    )
    torch.manual_seed(options.seed)
    model = LiteLVLMForSegmentation(lvlm_config(clip_config(guide_tokenizer), tokenizer))
    generation = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**generation, pad_token_id=tokenizer.pad_token_id, max_new_tokens=32)
    # Words must stand out against what attention adds from some hundred visual tokens
    nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    for frozen in (model.model.backbone.vision_tower, model.model.guide):
        frozen.requires_grad_(False)
    # Random features that encode positions are not trained in SAM either
    model.sam.shared_image_embedding.requires_grad_(False)
    return model, build_processor(tokenizer, guide_tokenizer)
