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
"""
Models of known size with random weights, for measuring speed: time and memory do not depend on what weights say.

Published shapes: LLaVA-1.5 (arXiv 2310.03744), LISA (arXiv 2308.00692), GLaMM (arXiv 2311.03356), CLIP ViT-L/14
(arXiv 2103.00020), SAM ViT-H (arXiv 2304.02643), LLaVA-NeXT with Vicuna-7B, in the crops of
llava-hf/llava-v1.6-vicuna-7b-hf (llava-vl.github.io/blog/2024-01-30-llava-next), LLaVA-NeXT-Interleave (arXiv
2407.07895) with Qwen1.5-7B, LLaVA-OneVision (arXiv 2408.03326) with Qwen2-7B, SigLIP so400m (arXiv 2303.15343),
PaliGemma 2 (arXiv 2412.03555) with Gemma 2 2B (arXiv 2408.00118), Qwen2-VL (arXiv 2409.12191) and Qwen2.5-VL (arXiv
2502.13923). VipLLaVA (arXiv 2312.00784) is LLaVA-1.5 but for its projector, which is not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation

# Height and width of the image that is measured with
IMAGE_SIZE = (480, 640)


@dataclass(frozen=True)
class Preset:
    """
    A model to measure and the prompt to measure it with.

    Args:
        make_config: gives its configuration.
        dtype: of weights and activations.
        num_text_tokens (`int`): tokens of the prompt that are not visual.
        num_new_tokens (`int`): tokens of the answer.
        num_tokens_after_seg (`int`): those of them that follow [SEG], such as a full stop and the end token.
    """

    make_config: Callable[[], LiteLVLMConfig]
    dtype: torch.dtype
    num_text_tokens: int = 128
    num_new_tokens: int = 10
    num_tokens_after_seg: int = 2


def _clip(image_size: int) -> dict[str, Any]:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return {
        "model_type": "clip_vision_model",
        "patch_size": 14,
        "image_size": image_size,
        "projection_dim": 768,
    } | sizes


def _llama(hidden_size: int = 4096, intermediate_size: int = 11008, num_layers: int = 32) -> dict[str, Any]:
    num_heads = hidden_size // 128
    return {
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads,
        "max_position_embeddings": 4096,
    }


SAM_VIT_HUGE: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    }
}


def _lvlm(
    image_size: int,
    text_config: dict[str, Any],
    masks: bool = True,
    crops: dict[str, Any] | None = None,
    **fields: Any,
) -> LiteLVLMConfig:
    backbone = {
        "vision_config": _clip(image_size),
        "text_config": text_config,
        "image_token_index": 32000,
    } | (crops or {"model_type": "llava", "image_seq_length": (image_size // 14) ** 2})
    sam_config = SAM_VIT_HUGE if masks else None
    return LiteLVLMConfig(backbone_config=backbone, sam_config=sam_config, seg_token_id=32001, **fields)


_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}


def _siglip(image_size: int) -> dict[str, Any]:
    """SigLIP so400m, as the guide."""
    return {
        "model_type": "siglip",
        "text_config": _SO400M | {"num_hidden_layers": 27, "bos_token_id": None, "eos_token_id": 1},
        "vision_config": _siglip_tower(image_size, 27),
    }


def _siglip_tower(image_size: int, num_layers: int) -> dict[str, Any]:
    tower = {"model_type": "siglip_vision_model", "num_hidden_layers": num_layers, "vision_use_head": False}
    return {"image_size": image_size, "patch_size": 14} | _SO400M | tower


def _siglip_lvlm(backbone: dict[str, Any], num_retained_tokens: int) -> LiteLVLMConfig:
    """SigLIP so400m at 384 pixels without its last layer, in front of a language model."""
    return LiteLVLMConfig(
        backbone_config={
            "vision_config": _siglip_tower(384, 26),
            "image_token_index": 151646,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        }
        | backbone,
        guide_config=_siglip(384),
        num_retained_tokens=num_retained_tokens,
    )


def _interleave() -> LiteLVLMConfig:
    """llava-interleave, in front of Qwen1.5."""
    text_config = _llama() | {"model_type": "qwen2", "vocab_size": 152000}
    return _siglip_lvlm({"model_type": "llava", "text_config": text_config, "image_seq_length": 729}, 243)


# At 7B, and of Qwen2.5 as well
_QWEN2 = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
_QWEN2 |= {"num_key_value_heads": 4}


def _onevision() -> LiteLVLMConfig:
    """LLaVA-OneVision in up to 36 crops, shrunk to nine crops' worth of tokens, in front of Qwen2."""
    text_config = _QWEN2 | {"model_type": "qwen2", "vocab_size": 152128, "max_position_embeddings": 32768}
    lines = range(384, 2305, 384)
    crops = {"image_grid_pinpoints": [[height, width] for height in lines for width in lines]}
    # A third of the tokens of an image of `IMAGE_SIZE`
    return _siglip_lvlm(
        {"model_type": "llava_onevision", "text_config": text_config, "vision_aspect_ratio": "anyres_max_9"} | crops,
        976,
    )


def _llava_next() -> LiteLVLMConfig:
    """LLaVA-NeXT in up to four crops, in front of Vicuna."""
    lines = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    crops = {"model_type": "llava_next", "image_grid_pinpoints": lines}
    # A third of the tokens of an image of `IMAGE_SIZE`
    return _lvlm(336, _llama(), masks=False, crops=crops, num_retained_tokens=780)


def _qwen_vl(model_type: str, tower: dict[str, Any], num_positions: int) -> LiteLVLMConfig:
    """A Qwen-VL, which sees images at any size, with CLIP ViT-L/14 at 336 pixels beside it."""
    tower = {"depth": 32, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2} | tower
    text_config = _QWEN2 | {"vocab_size": 152064, "max_position_embeddings": num_positions}
    backbone = {"model_type": model_type, "vision_config": tower, "text_config": text_config}
    texts = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    return LiteLVLMConfig(
        backbone_config=backbone | {"image_token_id": 151655},
        guide_config={"model_type": "clip", "text_config": texts, "vision_config": _clip(336), "projection_dim": 768},
        position_mode="original",
        # A third of the tokens of an image of `IMAGE_SIZE`
        num_retained_tokens=130,
    )


def _qwen2_vl() -> LiteLVLMConfig:
    tower = {"embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}
    return _qwen_vl("qwen2_vl", tower, 32768)


def _qwen2_5_vl() -> LiteLVLMConfig:
    tower = {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584}
    return _qwen_vl("qwen2_5_vl", tower | {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}, 128000)


def _paligemma_2() -> LiteLVLMConfig:
    """PaliGemma 2 3B at 448 pixels: SigLIP so400m, trained on from 224 pixels, in front of Gemma 2 2B."""
    return LiteLVLMConfig(
        backbone_config={
            "model_type": "paligemma",
            "vision_config": _siglip_tower(448, 27),
            "text_config": {
                "model_type": "gemma2",
                "vocab_size": 257216,
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "query_pre_attn_scalar": 256,
            },
            "image_token_index": 257152,
            "projection_dim": 2304,
            "hidden_size": 2304,
        },
        guide_config=_siglip(224),
        num_retained_tokens=341,
    )


def _cpu_small() -> LiteLVLMConfig:
    """576 visual tokens in a model of 43 million parameters, the work of its parts in about GLaMM-7B's proportions."""
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3}
    guide = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    sam_size = {"image_size": 512, "patch_size": 16}
    sam_vision = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "output_channels": 128}
    return LiteLVLMConfig(
        backbone_config={
            "model_type": "llava",
            "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
            | {"projection_dim": 128}
            | vision,
            "text_config": _llama(768, 2048, 4) | {"vocab_size": 1024},
            "image_token_index": 1000,
            "image_seq_length": 576,
        },
        guide_config={"vocab_size": 1024, "projection_dim": 128, "bos_token_id": 1022, "eos_token_id": 1023}
        | {"pad_token_id": 1023}
        | guide,
        sam_config={
            "vision_config": sam_vision | sam_size | {"global_attn_indexes": [1, 3, 5, 7], "num_pos_feats": 64},
            "prompt_encoder_config": {"hidden_size": 128} | sam_size,
            "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 1024, "num_attention_heads": 4},
        },
        seg_token_id=1001,
        mask_embedding_size=128,
    )


PRESETS: dict[str, Preset] = {
    "cpu-small": Preset(_cpu_small, torch.float32, num_text_tokens=20),
    "glamm-7b": Preset(lambda: _lvlm(336, _llama()), torch.bfloat16),
    "lisa-7b": Preset(lambda: _lvlm(224, _llama(), projector_type="linear"), torch.bfloat16),
    "lisa-13b": Preset(lambda: _lvlm(224, _llama(5120, 13824, 40), projector_type="linear"), torch.bfloat16),
    "llava-interleave-7b": Preset(_interleave, torch.bfloat16),
    "llava-onevision-7b": Preset(_onevision, torch.bfloat16),
    "qwen2-vl-7b": Preset(_qwen2_vl, torch.bfloat16),
    "qwen2.5-vl-7b": Preset(_qwen2_5_vl, torch.bfloat16),
    "paligemma2-3b": Preset(_paligemma_2, torch.bfloat16, num_text_tokens=20, num_new_tokens=20),
    "llava-1.5-7b": Preset(lambda: _lvlm(336, _llama(), masks=False), torch.bfloat16),
    "llava-next-7b": Preset(_llava_next, torch.bfloat16),
}


def build_model(
    config: LiteLVLMConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> LiteLVLMForSegmentation:
    """A model with random weights (seed 0), made on the device in its dtype: no second copy anywhere."""
    torch.manual_seed(0)
    with torch.device(device):
        return LiteLVLMForSegmentation._from_config(config, dtype=dtype).eval()


__all__ = ["IMAGE_SIZE", "PRESETS", "Preset", "build_model"]
