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
OpenCLIP checkpoints as Transformers' CLIP: `open_clip:ViT-L-14-336/openai` is an architecture and a tag of
pretrained weights. The folder that is made needs no open_clip.
"""

import gzip
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from .kinds import Kind

PREFIX = "open_clip:"

# Fields of open_clip's configurations that a standard CLIP is described by; any other changes the architecture
_TOP_FIELDS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_VISION_FIELDS = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_TEXT_FIELDS = {"context_length", "vocab_size", "layers", "width", "heads", "mlp_ratio"}

_NAMES = Kind(
    "open_clip",
    (
        (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
        (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
        (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
        (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
        (r"^visual\.proj$", "visual_projection.weight"),
        (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
        (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
        (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
        (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
        (r"^ln_final\.", "text_model.final_layer_norm."),
        (r"^text_projection$", "text_projection.weight"),
        (r"(layers\.\d+)\.ln_(\d)\.", r"\1.layer_norm\2."),
        (r"(layers\.\d+)\.attn\.", r"\1.self_attn."),
        (r"(layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
        (r"(layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    ),
    ((r"^attn_mask$", "computed from the configuration"),),
    has_masks=False,
)


def save_as_clip(name: str, folder: Path) -> None:
    """
    Writes an OpenCLIP model as a CLIP folder of Transformers: weights, image processor and tokenizer.

    Args:
        name (`str`): `"open_clip:ARCHITECTURE/TAG"`, or without a tag for an untrained model.
        folder (`Path`): to write into.

    Raises:
        ValueError: open_clip is not installed, or the architecture is not a plain CLIP.
    """
    try:
        import open_clip
        from open_clip.tokenizer import default_bpe
    except ImportError as error:
        raise ValueError(f"{name!r} needs open_clip: `pip install open_clip_torch`.") from error
    architecture, _, tag = name.removeprefix(PREFIX).partition("/")
    settings = open_clip.get_model_config(architecture)
    if settings is None:
        raise ValueError(f"open_clip has no architecture {architecture!r}; `open_clip.list_models()` lists them.")
    config = _clip_config(architecture, settings)
    source = open_clip.create_model(architecture, pretrained=tag or None, device="cpu")
    clip = CLIPModel(config)
    clip.load_state_dict(_clip_weights(source.state_dict()))
    clip.save_pretrained(folder)

    preprocess = open_clip.get_model_preprocess_cfg(source)
    side = config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=preprocess["mean"],
        image_std=preprocess["std"],
    ).save_pretrained(folder)
    # The vocabulary that CLIP was published with, which open_clip carries: bytes, bytes at a word's end, merges
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)


def _clip_config(architecture: str, settings: dict[str, Any]) -> CLIPConfig:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    unusual = sorted((set(settings) - _TOP_FIELDS) | (set(vision) - _VISION_FIELDS) | (set(text) - _TEXT_FIELDS))
    if unusual or not isinstance(vision["layers"], int):
        raise ValueError(
            f"open_clip's {architecture!r} is no plain CLIP ({', '.join(unusual) or 'a ResNet'}), so it has no form "
            "in Transformers' CLIP classes; use an architecture such as ViT-L-14-336."
        )
    shared = {
        "projection_dim": settings["embed_dim"],
        "hidden_act": "quick_gelu" if settings.get("quick_gelu") else "gelu",
    }
    return CLIPConfig(
        projection_dim=settings["embed_dim"],
        vision_config={
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            **shared,
        },
        text_config={
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            # open_clip reads the highest id, which is the end token's
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
            "pad_token_id": text["vocab_size"] - 1,
            **shared,
        },
    )


def _clip_weights(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights = {}
    for key, tensor in source.items():
        name = _NAMES.rename(key)
        if _NAMES.why_dropped(key):
            continue
        if name.endswith("in_proj_weight") or name.endswith("in_proj_bias"):
            layer, kind = name.rsplit("in_proj_", 1)
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{layer}{part}_proj.{kind}"] = value
        elif name in ("visual_projection.weight", "text_projection.weight"):
            weights[name] = tensor.T  # open_clip multiplies from the right
        else:
            weights[name] = tensor
    return weights


__all__ = ["PREFIX", "save_as_clip"]
