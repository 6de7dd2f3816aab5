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
OpenCLIP checkpoints as guides: `open_clip:ViT-L-14-336/openai` is an architecture and a tag of pretrained weights or a
file of them, `hf-hub:...` a Hub repository and `local-dir:...` a folder in open_clip's form. A plain CLIP becomes
Transformers' CLIP, so that the folder that is made needs no open_clip; any other stays an OpenCLIP model, as a guide
with a vision tower of its own.
"""

import gzip
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, normalizers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, PreTrainedConfig, SiglipConfig

from ..configuration.configuration_litelvlm import OpenCLIPGuideConfig
from .key_mappings import KeyMapping

PREFIXES = ("open_clip:", "hf-hub:", "local-dir:")

# Fields of open_clip's configurations that a standard CLIP is described by; any other changes the architecture
_TOP_FIELDS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_VISION_FIELDS = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_TEXT_FIELDS = {"context_length", "vocab_size", "layers", "width", "heads", "mlp_ratio"}

_TO_CLIP = KeyMapping(
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
)


def save_open_clip(name: str, folder: Path) -> None:
    """
    Writes an OpenCLIP model as a folder: of a plain CLIP the weights, image processor and tokenizer in Transformers'
    form, of any other the weights, the tokenizer and an [`OpenCLIPGuideConfig`].

    Args:
        name (`str`): `"open_clip:ARCHITECTURE/TAG"` (without a tag an untrained model), `"hf-hub:ORG/NAME"` or
            `"local-dir:FOLDER"`.
        folder (`Path`): to write into.

    Raises:
        ValueError: open_clip is not installed, or it has no such model.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(f"{name!r} needs open_clip: `pip install open_clip_torch`.") from error
    architecture, _, tag = name.removeprefix("open_clip:").partition("/")
    if not name.startswith("open_clip:"):
        architecture, tag = name, ""
    settings = open_clip.get_model_config(architecture)
    if settings is None:
        raise ValueError(f"open_clip has no architecture {architecture!r}; `open_clip.list_models()` lists them.")
    source = open_clip.create_model(architecture, pretrained=tag or None, device="cpu")
    preprocess = open_clip.get_model_preprocess_cfg(source)
    tokenizer = open_clip.get_tokenizer(architecture)
    if not _is_plain(settings):
        _save_guide(source, settings, preprocess, tokenizer, folder)
        return
    config = _clip_config(settings)
    clip = CLIPModel(config)
    clip.load_state_dict(_clip_weights(source.state_dict()))
    clip.save_pretrained(folder)
    side = config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=preprocess["mean"],
        image_std=preprocess["std"],
    ).save_pretrained(folder)
    _clip_tokenizer(77).save_pretrained(folder)


def read_clip_config(folder: Path) -> CLIPConfig | OpenCLIPGuideConfig | SiglipConfig:
    """The configuration of a CLIP folder, whichever of the three forms it has; a ValueError for another model's."""
    settings, _ = PreTrainedConfig.get_config_dict(folder)
    forms = {form.model_type: form for form in (CLIPConfig, OpenCLIPGuideConfig, SiglipConfig)}
    kind = settings.get("model_type", "clip")
    if kind not in forms:
        raise ValueError(
            f"The checkpoint that is to be the guide is a {kind!r}; allowed are CLIP, OpenCLIP and SigLIP."
        )
    return forms[kind].from_pretrained(folder)


def _save_guide(
    source: Any, settings: dict[str, Any], preprocess: dict[str, Any], tokenizer: Any, folder: Path
) -> None:
    context_length = settings["text_cfg"].get("context_length", 77)
    if hasattr(tokenizer, "tokenizer"):
        words = _cleaning_tokenizer(settings, tokenizer.tokenizer, context_length)
    else:
        words = _clip_tokenizer(context_length)
    words.save_pretrained(folder)
    OpenCLIPGuideConfig(
        architecture=settings,
        image_mean=list(preprocess["mean"]),
        image_std=list(preprocess["std"]),
        # open_clip's own tokenizer pads with 0, whatever stands there
        pad_token_id=words.pad_token_id if hasattr(tokenizer, "tokenizer") else 0,
    ).save_pretrained(folder)
    # The guide keeps as weights what open_clip computes when a model is built
    state = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    save_file({key: tensor.detach().contiguous() for key, tensor in state.items()}, folder / "model.safetensors")


def _clip_tokenizer(context_length: int) -> CLIPTokenizer:
    """The vocabulary that CLIP was published with, which open_clip carries: bytes, bytes at a word's end, merges."""
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context_length)


def _cleaning_tokenizer(settings: dict[str, Any], tokenizer: Any, context_length: int) -> Any:
    """A Transformers tokenizer that also cleans texts as open_clip does before it."""
    options = dict(settings["text_cfg"].get("tokenizer_kwargs", {}))
    clean = options.pop("clean", "whitespace")
    if options or settings["text_cfg"].get("tokenizer_mode") or clean not in ("whitespace", "lower", "canonicalize"):
        raise ValueError(
            f"The OpenCLIP model's `tokenizer_kwargs` are {settings['text_cfg'].get('tokenizer_kwargs')} and its "
            f"`tokenizer_mode` {settings['text_cfg'].get('tokenizer_mode')!r}; allowed is `clean` of 'whitespace', "
            "'lower' or 'canonicalize' only."
        )
    steps = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if clean == "canonicalize":
        steps = [normalizers.Replace("_", " "), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), *steps]
    if clean != "whitespace":
        steps.append(normalizers.Lowercase())
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence(steps + ([backend.normalizer] if backend.normalizer else []))
    tokenizer.model_max_length = context_length
    return tokenizer


def _is_plain(settings: dict[str, Any]) -> bool:
    """Whether an architecture has nothing that Transformers' CLIP classes lack."""
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    unusual = (set(settings) - _TOP_FIELDS) | (set(vision) - _VISION_FIELDS) | (set(text) - _TEXT_FIELDS)
    return not unusual and isinstance(vision["layers"], int)


def _clip_config(settings: dict[str, Any]) -> CLIPConfig:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
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
        name = _TO_CLIP.rename(key)
        if _TO_CLIP.why_dropped(key):
            continue
        if name.endswith(("in_proj_weight", "in_proj_bias")):
            layer, parameter = name.rsplit("in_proj_", 1)
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{layer}{part}_proj.{parameter}"] = value
        elif name in ("visual_projection.weight", "text_projection.weight"):
            weights[name] = tensor.T  # open_clip multiplies from the right
        else:
            weights[name] = tensor
    return weights


__all__ = ["PREFIXES", "read_clip_config", "save_open_clip"]
