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
The layouts that can be converted: for each one a key mapping, which renames tensors or leaves them out with a reason.

Renames are applied in their order, each to every key (`re.sub`), and give the names of [`LiteLVLMForSegmentation`];
whatever is not a name of the model afterwards is an error, so a mapping that forgets something cannot do it silently.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class KeyMapping:
    """
    What becomes of the keys of one layout.

    Args:
        name (`str`): as `--kind` takes it.
        renames (`tuple[tuple[str, str], ...]`): patterns and replacements.
        dropped (`tuple[tuple[str, str], ...]`): patterns of keys that are not converted, and why.
    """

    name: str
    renames: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...]

    def rename(self, key: str) -> str:
        """The model's name of a key of the checkpoint."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def why_dropped(self, key: str) -> str | None:
        """The reason why a key is left out, or `None` if it is not."""
        return next((why for pattern, why in self.dropped if re.search(pattern, key)), None)


def _sam(prefix: str) -> tuple[tuple[str, str], ...]:
    """From segment-anything's names under a prefix to those of Transformers' `SamModel`."""
    names = (
        (r"image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
        (r"image_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.layers.\1.layer_norm\2."),
        (r"image_encoder\.blocks\.", "vision_encoder.layers."),
        (r"image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
        (r"image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
        (r"image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
        (r"image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
        (r"image_encoder\.pos_embed", "vision_encoder.pos_embed"),
        (
            r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
            "shared_image_embedding.positional_embedding",
        ),
        (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
        (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
        (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
        (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
        (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
        (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
        (r"(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
        (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
        (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
        (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
        # Transformers names the first and the last layer of these apart; all have three
        (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.", r"\1proj_in."),
        (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.1\.", r"\1layers.0."),
        (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.2\.", r"\1proj_out."),
    )
    return (
        (rf"^{prefix}", "sam."),
        *((rf"^sam\.{pattern}", rf"sam.{name}") for pattern, name in names),
    )


# The language model in LLaVA's first layout, which LISA and GLaMM share
_LLAVA_LAYOUT = (
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.backbone.language_model.\1."),
    (r"^model\.mm_projector\.0\.", "model.backbone.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.backbone.multi_modal_projector.linear_2."),
    (r"^model\.mm_projector\.", "model.backbone.multi_modal_projector."),
    (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "model.backbone.vision_tower."),
    (r"^model\.text_hidden_fcs\.0\.0\.", "seg_head.linear_1."),
    (r"^model\.text_hidden_fcs\.0\.2\.", "seg_head.linear_2."),
)
_RECOMPUTED = (
    (r"\.rotary_emb\.inv_freq$", "computed from the configuration"),
    (r"\.embeddings\.position_ids$", "computed from the configuration"),
)

LISA = KeyMapping("lisa", (*_LLAVA_LAYOUT, *_sam(r"model\.visual_model\.")), _RECOMPUTED)
# LISA's keys, told apart by what else a checkpoint says; how they are asked stands in presets.py
SESAME = replace(LISA, name="sesame")
GSVA = replace(LISA, name="gsva")
LISA_PLUS = replace(LISA, name="lisa-plus")
READ = replace(LISA, name="read")
_ARCHITECTURES = {"SESAMEForCausalLM": SESAME, "LisaGSVAForCausalLM": GSVA, "READForCausalLM": READ}
GLAMM = KeyMapping(
    "glamm",
    (*_LLAVA_LAYOUT, *_sam(r"model\.grounding_encoder\.")),
    (
        *_RECOMPUTED,
        (r"^model\.region_encoder\.", "region prompts (a box as a part of the question) are not supported"),
    ),
)
# Transformers' own format, in the names of today and in the older ones of files on the Hub
LLAVA = KeyMapping(
    "llava",
    (
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.backbone.language_model."),
        (r"^(?:model\.)?(vision_tower\.|multi_modal_projector\.|image_newline$)", r"model.backbone.\1"),
        (r"^model\.language_model\.", "model.backbone.language_model."),
        # Qwen-VL's
        (r"^model\.(embed_tokens|layers|norm)\.", r"model.backbone.language_model.\1."),
        (r"^(?:model\.)?visual\.", "model.backbone.visual."),
        (r"^(model\.backbone\.vision_tower\.)vision_model\.", r"\1"),
    ),
    (
        *_RECOMPUTED,
        (r"vision_tower\.(vision_model\.)?head\.", "not used by the language model; the guide's is SigLIP's"),
    ),
)
LLAVA_TYPES = ("llava", "vipllava", "llava_next", "llava_onevision", "paligemma", "qwen2_vl", "qwen2_5_vl")
KEY_MAPPINGS = {mapping.name: mapping for mapping in (LISA, SESAME, GSVA, LISA_PLUS, READ, GLAMM, LLAVA)}

# CLIP in Transformers' format: the guide, and the vision tower where the checkpoint has none
CLIP = KeyMapping(
    "clip",
    (
        (r"^vision_model\.", "model.backbone.vision_tower."),
        (r"^text_model\.", "model.guide.text_model.text_model."),
        (r"^text_projection\.", "model.guide.text_model.text_projection."),
        (r"^visual_projection\.", "model.guide.visual_projection."),
    ),
    ((r"^logit_scale$", "scales the loss of CLIP's training, not the similarity"), *_RECOMPUTED),
)

# CLIP as an external guide, which keeps its vision tower
EXTERNAL_CLIP = KeyMapping(
    "external_clip", ((r"^vision_model\.", "model.guide.vision_model."), *CLIP.renames[1:]), CLIP.dropped
)

# SigLIP in Transformers' format: the guide, with what follows the layers of the vision tower
SIGLIP = KeyMapping(
    "siglip",
    (
        (r"^text_model\.", "model.guide.text_model."),
        (r"^vision_model\.(head|post_layernorm)\.", r"model.guide.\1."),
        (r"^vision_model\.", "model.backbone.vision_tower."),
    ),
    ((r"^logit_(scale|bias)$", "of the loss of SigLIP's training, not of the similarity"), *_RECOMPUTED),
)

# An OpenCLIP model that is the guide as it is
OPEN_CLIP = KeyMapping(
    "open_clip_guide",
    ((r"^", "model.guide.clip."),),
    ((r"^text_decoder\.", "makes captions"),),
)


def check_merged(keys: Iterable[str]) -> None:
    """Raises a `ValueError` if some of these keys are LoRA's, whose weights stand apart from those they change."""
    for key in keys:
        if key.startswith("base_model.model.") or ".lora_" in key:
            raise ValueError(
                f"The checkpoint holds the weights of LoRA beside or in place of its own, such as {key!r}; merge them "
                "first, as `merge_and_unload` of peft does, and convert what that saves."
            )


def detect_layout(config: dict[str, Any], keys: Iterable[str], names: Iterable[str] = ()) -> KeyMapping:
    """
    The key mapping of a checkpoint, by keys that only one layout has and, among those with LISA's, by the class that
    the configuration names or, of LISA++, whose class is LISA's, by a name of the checkpoint.

    Raises:
        ValueError: no layout fits.
    """
    keys = list(keys)
    if any(key.startswith("model.visual_model.image_encoder.") for key in keys):
        is_plus = any(re.search(r"lisa(-?plus|\+\+)", _last_part(name)) for name in names)
        named = [_ARCHITECTURES[a] for a in config.get("architectures") or () if a in _ARCHITECTURES]
        return named[0] if named else LISA_PLUS if is_plus else LISA
    if any(key.startswith("model.grounding_encoder.image_encoder.") for key in keys):
        return GLAMM
    if config.get("model_type") in LLAVA_TYPES and "vision_config" in config:
        return LLAVA
    raise ValueError(
        f"The checkpoint's kind cannot be told (`model_type` {config.get('model_type')!r}, first key "
        f"{keys[0] if keys else None!r}); allowed are LISA, those in its layout, and GLaMM, and LLaVA, "
        "VipLLaVA, LLaVA-NeXT, LLaVA-OneVision, PaliGemma or Qwen-VL in Transformers' format. Save it in one of these "
        "layouts "
        "first."
    )


def _last_part(name: str) -> str:
    """Of a Hub id or path, in the spelling that names are compared in."""
    return name.rstrip("/").rpartition("/")[2].lower().replace("_", "-")


__all__ = [
    "CLIP",
    "EXTERNAL_CLIP",
    "GLAMM",
    "GSVA",
    "KEY_MAPPINGS",
    "LISA",
    "LISA_PLUS",
    "LLAVA",
    "LLAVA_TYPES",
    "OPEN_CLIP",
    "READ",
    "SESAME",
    "SIGLIP",
    "KeyMapping",
    "check_merged",
    "detect_layout",
]
