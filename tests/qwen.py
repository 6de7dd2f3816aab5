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
"""Tiny random Qwen-VLs with their processors, and a CLIP that guides them from outside."""

from pathlib import Path
from typing import Any

from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from .conftest import byte_tokenizer
from .siglip import randomise

HOSTS = ["qwen2_5_vl", "qwen2_vl"]
# Qwen2.5-VL's own, without what it says of tools
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VISION = {"depth": 2, "patch_size": 4, "spatial_merge_size": 2}
_OF_HOST: dict[str, tuple[Any, ...]] = {
    "qwen2_5_vl": (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        _VISION
        | {"hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48}
        # Windows of 2 x 2 merged tokens, and one layer that sees everything
        | {"window_size": 16, "fullatt_block_indexes": [1]},
    ),
    "qwen2_vl": (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
        _VISION | {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 48},
    ),
}


def write_qwen(host: str, folder: Path) -> tuple[Any, Any]:
    """A Qwen-VL that sees 4 x 4 pixels a patch, of which 2 x 2 merge, and its processor: 6 to 40 tokens an image."""
    config_class, model_class, processor_class, vision = _OF_HOST[host]
    tokenizer = byte_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left")
    marks = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(marks, special_tokens=True)
    ids = {mark.strip("<|>"): tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "bos_token_id": None}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}}
    config = config_class(
        vision_config=vision,
        text_config=text,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    lvlm = randomise(model_class(config))
    lvlm.generation_config.eos_token_id = tokenizer.eos_token_id
    lvlm.generation_config.pad_token_id = tokenizer.pad_token_id
    sizes = {"patch_size": 4, "merge_size": 2, "size": {"shortest_edge": 6 * 64, "longest_edge": 40 * 64}}
    own = processor_class(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=CHAT_TEMPLATE
    )
    lvlm.save_pretrained(folder)
    own.save_pretrained(folder)
    return lvlm, own


def write_clip(folder: Path) -> CLIPModel:
    """A CLIP of 4 x 4 patches, whose parts name another width of the joint space than it has."""
    tokenizer = byte_tokenizer(
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {"image_size": 32, "patch_size": 8}
    clip = randomise(CLIPModel(CLIPConfig(text_config=sizes | text, vision_config=sizes | vision, projection_dim=16)))
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return clip
