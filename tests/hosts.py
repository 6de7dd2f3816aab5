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
"""Tiny random LVLMs in Transformers' own format, saved with their processors, and what their towers come from."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    SiglipImageProcessor,
    SiglipModel,
    VipLlavaForConditionalGeneration,
)

from litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMProcessor

from .siglip import (
    CHAT_TEMPLATE,
    NUM_PATCHES,
    gemma_tokenizer,
    qwen2,
    randomise,
    siglip_vision,
    take_tower,
    write_siglip,
)

LLAVA_NEXT_PINPOINTS = [[32, 64], [64, 32], [64, 64]]
# At most two crops' worth of patches, by 1.1 in each direction: a square of four crops is shrunk
ONEVISION_PINPOINTS, ONEVISION_LIMIT = [[32, 32], [32, 64], [64, 32], [64, 64]], "anyres_max_2"

# With several images in a conversation: with SigLIP's tower, or in crops
WITH_SEVERAL_IMAGES = ["llava", "llava_next", "llava_onevision"]
# With CLIP's tower and whole images; by the type of the backbone
WRAPPED = {"llava": LlavaForConditionalGeneration, "vipllava": VipLlavaForConditionalGeneration}


def wrapped_lvlm(model: Any) -> Any:
    """The Transformers model that `model` wraps, with the same weights."""
    config = model.config.backbone_config
    lvlm = WRAPPED[config.model_type](config).eval()
    lvlm.model.load_state_dict(model.model.backbone.state_dict())
    lvlm.lm_head.load_state_dict(model.lm_head.state_dict())
    return lvlm


def backbone_values(config_values: dict[str, Any], kind: str) -> dict[str, Any]:
    backbone = config_values["backbone_config"] | {"model_type": kind}
    return backbone | ({"vision_feature_layers": [-2, -3, 1]} if kind == "vipllava" else {})


def write_llava_next(folder: Path, processor: LiteLVLMProcessor, values: dict[str, Any]) -> Any:
    """A LLaVA-NeXT as `llava_next`, its CLIP as `clip`, and the model with its processor."""
    torch.manual_seed(0)
    tokenizer, guide = processor.tokenizer, processor.guide_tokenizer
    backbone = values["backbone_config"]
    text = backbone["text_config"] | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = LlavaNextConfig(
        vision_config=backbone["vision_config"],
        text_config=text,
        image_grid_pinpoints=LLAVA_NEXT_PINPOINTS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = LlavaNextForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "llava_next")
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=LLAVA_NEXT_PINPOINTS
    )
    own = LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    )
    own.save_pretrained(folder / "llava_next")
    guide_values = values["guide_config"] | {"vocab_size": len(guide), "pad_token_id": guide.pad_token_id}
    guide_values |= {"bos_token_id": guide.bos_token_id, "eos_token_id": guide.eos_token_id}
    clip = CLIPModel(CLIPConfig(text_config=guide_values, vision_config=backbone["vision_config"], projection_dim=16))
    clip.save_pretrained(folder / "clip")
    guide.save_pretrained(folder / "clip")
    return model, own


def write_interleave(folder: Path, processor: LiteLVLMProcessor, guide: Any) -> tuple[Any, SiglipModel]:
    """A llava-interleave as `lvlm` and its SigLIP, with this tokenizer, as `siglip`; the models."""
    tokenizer = processor.tokenizer
    (folder / "siglip").mkdir()
    siglip = write_siglip(folder / "siglip", guide)
    config = LlavaConfig(
        vision_config=siglip_vision(),
        text_config=qwen2(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=NUM_PATCHES,
    )
    lvlm = randomise(LlavaForConditionalGeneration(config))
    take_tower(lvlm, siglip)
    lvlm.save_pretrained(folder / "lvlm")
    tokenizer.bos_token = None
    LlavaProcessor(
        SiglipImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=0,
    ).save_pretrained(folder / "lvlm")
    return lvlm, siglip


def write_onevision(folder: Path, processor: LiteLVLMProcessor) -> Any:
    """A LLaVA-OneVision as `lvlm`, its SigLIP as `siglip`, and the model with its processor."""
    tokenizer = processor.tokenizer
    (folder / "siglip").mkdir()
    siglip = write_siglip(folder / "siglip", gemma_tokenizer())
    tokenizer.add_tokens(["<video>"], special_tokens=True)
    tokenizer.bos_token = None
    config = LlavaOnevisionConfig(
        vision_config=siglip_vision(),
        text_config=qwen2(tokenizer),
        image_grid_pinpoints=ONEVISION_PINPOINTS,
        vision_aspect_ratio=ONEVISION_LIMIT,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    lvlm = randomise(LlavaOnevisionForConditionalGeneration(config))
    take_tower(lvlm, siglip)
    lvlm.save_pretrained(folder / "lvlm")
    own = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=ONEVISION_PINPOINTS),
        tokenizer,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=NUM_PATCHES,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        vision_aspect_ratio=ONEVISION_LIMIT,
    )
    own.save_pretrained(folder / "lvlm")
    return lvlm, own


@torch.no_grad()
def check_batch_is_single_calls(
    model: LiteLVLMForConditionalGeneration, processor: LiteLVLMProcessor, images: list[Any], questions: list[str]
) -> None:
    """A padded batch keeps the patches, and gives the logits, of a call for each question."""
    together = model(**processor(images, questions))
    for i, question in enumerate(questions):
        alone = model(**processor(images[i], question))
        assert torch.equal(together.retained_indices[i], alone.retained_indices[0])
        length = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[i, -length:], alone.logits[0], rtol=1e-4, atol=1e-4)
