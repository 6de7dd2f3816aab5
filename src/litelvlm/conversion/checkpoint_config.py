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
"""The configuration of a converted checkpoint, from the source's, the CLIP's and the weights' shapes."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    CLIPConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedConfig,
    SiglipConfig,
)

from ..configuration.configuration_litelvlm import (
    TEXTLESS_TOWERS,
    LiteLVLMConfig,
    OpenCLIPGuideConfig,
    num_patches_per_side,
)
from .key_mappings import LLAVA, KeyMapping

# Of Llama's fields, those that LISA's and GLaMM's configurations may hold; all others are LLaVA's first layout's own
_LLAMA_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def build_config(
    source: dict[str, Any],
    meta: dict[str, torch.Tensor],
    mapping: KeyMapping,
    clip: CLIPConfig | OpenCLIPGuideConfig | SiglipConfig,
    tokenizer: Any,
    seg_token_id: int | None,
) -> LiteLVLMConfig:
    """
    The configuration of the whole model.

    Args:
        source (`dict`): the source's own configuration.
        meta (`dict[str, torch.Tensor]`): the source's tensors, whose shapes tell SAM's sizes and the vocabulary's.
        mapping ([`KeyMapping`]): of the source's layout.
        clip ([`CLIPConfig`], [`OpenCLIPGuideConfig`] or [`SiglipConfig`]): of the CLIP that guides the pruning.
        tokenizer: the language model's, or `None` if there is none.
        seg_token_id (`int`, *optional*): id of [SEG], where no tokenizer tells.

    Raises:
        ValueError: an OpenCLIP or SigLIP guide where the CLIP has to give the vision tower, no SAM where the layout
            has one, a tokenizer of other weights, or no id of [SEG].
    """
    if mapping is LLAVA:
        return _config_of_llava(source, clip)
    if not isinstance(clip, CLIPConfig):
        raise ValueError(
            f"The OpenCLIP or SigLIP model is no plain CLIP, so it cannot give {mapping.name} its vision tower; name "
            "the CLIP that the vision tower comes from."
        )
    known = {mapping.rename(key): tensor for key, tensor in meta.items()}
    return _config_of_lisa(source, known, mapping, clip, tokenizer, seg_token_id)


def _config_of_llava(source: dict[str, Any], clip: CLIPConfig | OpenCLIPGuideConfig | SiglipConfig) -> LiteLVLMConfig:
    """The source is in Transformers' format: its configuration is the backbone's."""
    if source.get("model_type") in TEXTLESS_TOWERS:
        backbone = AutoConfig.for_model(**source)
        return LiteLVLMConfig(backbone_config=backbone, guide_config=clip, position_mode="original")
    if isinstance(clip, CLIPConfig):
        source = source | {"vision_config": source["vision_config"] | {"projection_dim": clip.projection_dim}}
    if isinstance(clip, SiglipConfig):  # the guide has its own, and the language model sees what is before it
        source = source | {"vision_config": source["vision_config"] | {"vision_use_head": False}}
    backbone = AutoConfig.for_model(**{"model_type": "llava"} | source)
    return LiteLVLMConfig(
        backbone_config=backbone,
        guide_config=_guide_config(clip),
        num_retained_tokens=_default_budget(backbone.vision_config),
    )


def _config_of_lisa(
    source: dict[str, Any],
    known: dict[str, torch.Tensor],
    mapping: KeyMapping,
    clip: CLIPConfig,
    tokenizer: Any,
    seg_token_id: int | None,
) -> LiteLVLMConfig:
    """LISA's and GLaMM's; `known` holds the source's tensors under the model's names."""
    if not any(name.startswith("sam.vision_encoder.") for name in known):
        raise ValueError(
            f"The checkpoint has no SAM under the names of {mapping.name}; leave `--kind` to be found out."
        )
    vocab_size = known["model.backbone.language_model.embed_tokens.weight"].shape[0]
    if tokenizer is not None:
        seg_token_id = _seg_token_id(tokenizer, vocab_size)
    if seg_token_id is None:
        raise ValueError("There is no tokenizer to tell the id of [SEG]; give `--tokenizer` or `--seg-token-id`.")
    text = {name: source[name] for name in _LLAMA_FIELDS if source.get(name) is not None}
    vision = clip.vision_config
    vision.projection_dim = clip.projection_dim
    return LiteLVLMConfig(
        backbone_config=LlavaConfig(
            vision_config=vision,
            # <image> gets an id of its own: the training code had none in the vocabulary
            text_config=LlamaConfig.from_dict(text | {"vocab_size": vocab_size + 1}),
            image_token_index=vocab_size,
            image_seq_length=_num_patches(vision),
            vision_feature_layer=source.get("mm_vision_select_layer", -2),
        ),
        guide_config=_guide_config(clip),
        num_retained_tokens=_default_budget(vision),
        projector_type="linear" if "model.backbone.multi_modal_projector.weight" in known else "mlp",
        sam_config=sam_config(known),
        seg_token_id=seg_token_id,
        mask_embedding_size=source.get("out_dim", 256),
    )


def _guide_config(clip: CLIPConfig | OpenCLIPGuideConfig | SiglipConfig) -> PreTrainedConfig:
    if not isinstance(clip, CLIPConfig):
        return clip
    clip.text_config.projection_dim = clip.projection_dim
    return clip.text_config


def _num_patches(vision_config: Any) -> int:
    """Of one image or crop, where there is no [`LiteLVLMConfig`] yet to tell."""
    return num_patches_per_side(vision_config) ** 2


def _default_budget(vision_config: Any) -> int:
    """The paper's share, 192 of 576."""
    return _num_patches(vision_config) // 3


def _seg_token_id(tokenizer: Any, vocab_size: int) -> int:
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    if image_token_id != vocab_size:
        raise ValueError(
            f"The tokenizer gives <image> the id {image_token_id}, but the weights have {vocab_size} words, so it "
            f"should be {vocab_size}; name the tokenizer that belongs to the checkpoint with `--tokenizer`."
        )
    return tokenizer.convert_tokens_to_ids("[SEG]")


def sam_config(known: dict[str, torch.Tensor]) -> dict[str, Any]:
    """SAM's sizes, read from the shapes of its image encoder; everything else is SAM's own."""
    prefix = "sam.vision_encoder."
    hidden_size, _, patch_size, _ = known[f"{prefix}patch_embed.projection.weight"].shape
    side = known[f"{prefix}pos_embed"].shape[1]
    num_layers = sum(name.startswith(prefix) and name.endswith("attn.qkv.weight") for name in known)
    # Relative positions: 2 * side - 1 in layers that see the whole image, 2 * window - 1 in the others
    tables = [known[f"{prefix}layers.{i}.attn.rel_pos_h"].shape for i in range(num_layers)]
    seen = [(num_positions + 1) // 2 for num_positions, _ in tables]
    windows = set(seen) - {side}
    return {
        "vision_config": {
            "hidden_size": hidden_size,
            "mlp_dim": known[f"{prefix}layers.0.mlp.lin1.weight"].shape[0],
            "num_hidden_layers": num_layers,
            "num_attention_heads": hidden_size // tables[0][1],
            "image_size": side * patch_size,
            "patch_size": patch_size,
            "output_channels": known[f"{prefix}neck.conv1.weight"].shape[0],
            "window_size": windows.pop() if windows else 0,
            "global_attn_indexes": [i for i, length in enumerate(seen) if length == side],
        },
        # segment-anything leaves PyTorch's default in its mask decoder, which Transformers' SAM sets lower
        "mask_decoder_config": {"layer_norm_eps": 1e-5},
    }


def generation_config(config: LiteLVLMConfig) -> GenerationConfig:
    """Special tokens, and <image> never said."""
    text = config.get_text_config()
    ids = {name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(**ids, suppress_tokens=[config.image_token_id], max_new_tokens=512)


__all__ = ["build_config", "generation_config", "sam_config"]
