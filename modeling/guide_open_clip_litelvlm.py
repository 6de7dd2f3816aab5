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
A guide for models that Transformers' CLIP classes cannot hold: a whole OpenCLIP model beside the LVLM, with a vision
tower of its own that looks at the same image through the same grid of patches.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..configuration.configuration_litelvlm import OpenCLIPGuideConfig


class LiteLVLMOpenCLIPGuide(nn.Module):
    """
    An OpenCLIP model (CLIP, CoCa, EVA, SigLIP, ...) as the guide.

    Args:
        config ([`OpenCLIPGuideConfig`]): the architecture, and the pixel values that it takes.
        num_patches (`int`): patches of the LVLM's vision tower (N), which this model must cut an image into too.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: the model has no grid of N patches, such as a ResNet or a ViT of another resolution.
    """

    def __init__(self, config: OpenCLIPGuideConfig, num_patches: int):
        super().__init__()
        self.config = config
        self.clip = _build(config.architecture)
        grid = getattr(self.clip.visual, "grid_size", None)
        if hasattr(self.clip.visual, "trunk"):
            grid = getattr(getattr(self.clip.visual.trunk, "patch_embed", None), "grid_size", None)
        if grid is None or grid[0] * grid[1] != num_patches:
            raise ValueError(
                f"The OpenCLIP guide cuts an image into {'no patches' if grid is None else f'{grid[0]} x {grid[1]}'} "
                f"but the LVLM's vision tower into {num_patches}; take a guide whose image size over its patch size "
                "is the same."
            )
        # A model is built without values and filled from a file: what is computed when it is built stands there too
        for module in self.clip.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """As [`LiteLVLMGuide`]: text embeddings of shape `(B, T, P)`, not normalised, of ids of shape `(B, T, G)`."""
        ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id).flatten(0, 1)
        length = self.config.architecture["text_cfg"].get("context_length", 77)
        ids = nn.functional.pad(ids, (0, length - ids.shape[1]), value=self.config.pad_token_id)
        return self.clip.encode_text(ids, normalize=False).unflatten(0, input_ids.shape[:2])

    def encode_patches(self, pixel_values: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """
        Each patch of the last layer but one in the joint space: what the vision tower's own norm, pooling and
        projection make of an image that consists of this patch. For a plain CLIP that is its projection.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): normalised as CLIP's are.
            patches (`torch.Tensor` of shape `(B, N, D)`): of the LVLM's vision tower; only their dtype is looked at.

        Returns:
            `torch.Tensor` of shape `(B, N, P)`.
        """
        visual = self.clip.visual
        own = visual.forward_intermediates(
            self._own_pixels(pixel_values),
            indices=2,
            normalize_intermediates=hasattr(visual, "trunk"),
            intermediates_only=True,
            output_fmt="NLC",
        )["image_intermediates"][0]
        # Twice, as a pooling may leave a class token out: the mean of two equal tokens is that token
        alone = own.flatten(0, 1)[:, None].expand(-1, 2, -1)
        if hasattr(visual, "trunk"):
            embeds = visual.head(visual.trunk.forward_head(alone))
        elif visual.attn_pool is not None:
            embeds = visual.ln_post(visual.attn_pool(alone))[:, 0] @ visual.proj
        else:
            embeds = visual.ln_post(alone)[:, 0] @ visual.proj
        return embeds.unflatten(0, own.shape[:2]).to(patches.dtype)

    def _own_pixels(self, pixel_values: torch.Tensor) -> torch.Tensor:
        size = tuple(self.clip.visual.image_size)
        if tuple(pixel_values.shape[-2:]) != size:
            pixel_values = nn.functional.interpolate(pixel_values, size, mode="bicubic", antialias=True)
        moments = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, self.config.image_mean, self.config.image_std)
        mean, std, own_mean, own_std = (pixel_values.new_tensor(list(values))[:, None, None] for values in moments)
        return (pixel_values * std + mean - own_mean) / own_std


def _build(architecture: dict[str, Any]) -> nn.Module:
    """The model of an architecture, without pretrained weights and without what makes captions."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError("This model's guide is an OpenCLIP model: `pip install open_clip_torch`.") from error
    settings = deepcopy(architecture)
    settings["vision_cfg"]["timm_model_pretrained"] = settings["text_cfg"]["hf_model_pretrained"] = False
    if not settings.pop("custom_text", False) and "hf_model_name" not in settings["text_cfg"]:
        return open_clip.CLIP(**settings)
    if "multimodal_cfg" not in settings:
        return open_clip.CustomTextCLIP(**settings)
    model = open_clip.CoCa(**settings)
    del model.text_decoder
    return model


__all__ = ["LiteLVLMOpenCLIPGuide"]
