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
"""The guide: the parts of CLIP that an LVLM leaves out, which bring texts and patches into one space."""

import os
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    SiglipModel,
)

from ..configuration.configuration_litelvlm import TEXTLESS_TOWERS
from .hub_litelvlm import HUB_OPTIONS

# The CLIP checkpoints that the LLaVA family was built on, by width, patch size and image size of the vision tower
_KNOWN_CLIPS = {
    (1024, 14, 224): "openai/clip-vit-large-patch14",
    (1024, 14, 336): "openai/clip-vit-large-patch14-336",
}
# For towers that come from no CLIP: the one that the paper measured
EXTERNAL_CLIP = "openai/clip-vit-large-patch14-336"


class LiteLVLMGuide(nn.Module):
    """CLIP's text tower and the projection of its vision tower."""

    def __init__(self, text_config: CLIPTextConfig, vision_config: CLIPVisionConfig):
        super().__init__()
        self.text_model = CLIPTextModelWithProjection._from_config(text_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, vision_config.projection_dim, bias=False)

    def take_from(self, clip: CLIPModel) -> None:
        """Takes the modules of a CLIP over: no second copy of its weights."""
        self.visual_projection = clip.visual_projection
        self.text_model.text_model, self.text_model.text_projection = clip.text_model, clip.text_projection

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T, G)` or `(B, T, sentences, G)`): ids of CLIP's tokenizer,
                padded on the right.
            attention_mask (`torch.Tensor` of the same shape): not used here.

        Returns:
            `torch.Tensor` of shape `(B, T, P)`: projected [EOS] outputs, not normalised, or the mean of the sentences'
            normalised ones, as CLIP's prompt ensembles are made; arbitrary for absent texts.
        """
        # The tower is causal and read at [EOS], so padding on the right changes nothing; a mask would cost a device
        # sync, as Transformers searches it for padding
        text_embeds = self.text_model(input_ids=input_ids.flatten(0, -2)).text_embeds
        text_embeds = text_embeds.unflatten(0, input_ids.shape[:-1])
        return text_embeds if input_ids.ndim == 3 else nn.functional.normalize(text_embeds, dim=-1).mean(dim=2)

    def encode_patches(self, pixel_values: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): not used here.
            patches (`torch.Tensor` of shape `(B, N, D)`): after the vision tower's last norm.

        Returns:
            `torch.Tensor` of shape `(B, N, P)`: the patches in CLIP's joint space.
        """
        return self.visual_projection(patches)


def class_token_attention(layer: nn.Module, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """
    How the class token asks the patches in a layer of CLIP's vision tower, over the full width.

    Args:
        layer (`nn.Module`): of the tower.
        hidden_states (`torch.Tensor` of shape `(B, 1 + N, D)`): what enters it.

    Returns:
        The query `(B, D)` of the class token, and the keys and values of the patches, `(B, N, D)` each.
    """
    inputs, attention = layer.layer_norm1(hidden_states), layer.self_attn
    return attention.q_proj(inputs[:, 0]), attention.k_proj(inputs[:, 1:]), attention.v_proj(inputs[:, 1:])


def default_guide(vision_config: Any) -> str:
    """
    The Hub id of the CLIP checkpoint that a vision tower of these sizes comes from in the LLaVA family, or of the one
    that the paper measured, for a tower that comes from none.

    Raises:
        ValueError: no known CLIP has these sizes, or several do.
    """
    if vision_config.model_type in TEXTLESS_TOWERS:
        return EXTERNAL_CLIP
    sizes = (vision_config.hidden_size, vision_config.patch_size, vision_config.image_size)
    if vision_config.model_type == "siglip_vision_model":
        raise ValueError(
            "The vision tower is SigLIP's, and those of SigLIP and SigLIP 2 have the same sizes; name the one that it "
            "comes from as `guide`, such as google/siglip-so400m-patch14-384."
        )
    if sizes not in _KNOWN_CLIPS:
        raise ValueError(
            f"No CLIP is known for a vision tower of width {sizes[0]}, patch size {sizes[1]} and image size "
            f"{sizes[2]}; name the CLIP checkpoint that it comes from as `guide`."
        )
    return _KNOWN_CLIPS[sizes]


def load_parent(name: str | os.PathLike, vision_config: Any, **kwargs: Any) -> CLIPModel | SiglipModel:
    """
    The CLIP or SigLIP that a vision tower comes from, or any CLIP for a tower that comes from none.

    Raises:
        ValueError: it is another kind of model, or of other sizes.
    """
    parents = {"clip_vision_model": CLIPModel, "siglip_vision_model": SiglipModel}
    parent_class = parents.get(vision_config.model_type, CLIPModel)
    reaching = {option: value for option, value in kwargs.items() if option in HUB_OPTIONS}
    config: Any = AutoConfig.from_pretrained(name, **reaching)
    wanted = parent_class.config_class.model_type
    comes_from_it = vision_config.model_type not in TEXTLESS_TOWERS
    if config.model_type != wanted:
        which = f"the {wanted!r} model that it comes from" if comes_from_it else f"any {wanted!r} model"
        raise ValueError(
            f"`guide` {str(name)!r} is a {config.model_type!r} model, but the vision tower of the backbone is a "
            f"{vision_config.model_type!r}; allowed is {which}."
        )
    for size in ("hidden_size", "patch_size", "image_size") if comes_from_it else ():
        of_guide, of_backbone = getattr(config.vision_config, size), getattr(vision_config, size)
        # PaliGemma's towers of 448 and 896 pixels were trained on from SigLIP's of 224; the guide knows no positions
        is_enlarged = size == "image_size" and parent_class is SiglipModel and of_backbone % of_guide == 0
        if of_guide != of_backbone and not is_enlarged:
            raise ValueError(
                f"`guide` {str(name)!r} has a vision tower of {size} {of_guide}, but that of the backbone has "
                f"{of_backbone}; give the CLIP or SigLIP checkpoint that the backbone was built on."
            )
    return parent_class.from_pretrained(name, **kwargs)


def boundary_token_ids(text_config: CLIPTextConfig) -> tuple[int, int]:
    """The ids of the tokens that a text for CLIP begins and ends with."""
    # CLIP's first configurations have an end token of 2 and mean the two highest ids
    if text_config.eos_token_id == 2:
        return text_config.vocab_size - 2, text_config.vocab_size - 1
    return text_config.bos_token_id, text_config.eos_token_id


__all__ = [
    "EXTERNAL_CLIP",
    "LiteLVLMGuide",
    "boundary_token_ids",
    "class_token_attention",
    "default_guide",
    "load_parent",
]
