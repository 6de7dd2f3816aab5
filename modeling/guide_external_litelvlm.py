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
A guide for LVLMs whose vision tower was trained with no text tower, such as Qwen2.5-VL's: a whole CLIP, which sees the
image beside that tower. What it finds on its own square grid is mapped onto the grid of the LVLM's visual tokens.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, CLIPConfig, CLIPModel, CLIPVisionModel

from .guide_litelvlm import LiteLVLMGuide, class_token_attention


class LiteLVLMExternalGuide(LiteLVLMGuide):
    """CLIP's text tower, and the vision tower that was trained with it."""

    def __init__(self, config: CLIPConfig):
        text_config, vision_config = config.text_config, config.vision_config
        # The one width that counts; the parts' own say something else in many files
        text_config.projection_dim = vision_config.projection_dim = config.projection_dim
        super().__init__(text_config, vision_config)
        self.vision_model = CLIPVisionModel._from_config(vision_config)

    def take_from(self, clip: CLIPModel) -> None:
        super().take_from(clip)
        self.vision_model = clip.vision_model

    def read_image(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        The signals that [`LiteLVLMModel`] takes of a LLaVA's tower, of the layer before the last, which LLaVA reads.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): the whole image, as CLIP takes it.

        Returns:
            The patches in CLIP's joint space, `(B, n * n, P)`; then, of the last layer, the query `(B, D)` of the
            class token and the keys and values of the patches, `(B, n * n, D)` each.
        """
        tower = self.vision_model
        *earlier, last = tower.encoder.layers
        hidden_states = tower.pre_layrnorm(tower.embeddings(pixel_values))
        for layer in earlier:
            hidden_states = layer(hidden_states, attention_mask=None)
        patches = tower.post_layernorm(hidden_states[:, 1:])
        return self.encode_patches(pixel_values, patches), *class_token_attention(last, hidden_states)


def guide_image_options(name: str | os.PathLike, **kwargs: Any) -> dict[str, Any]:
    """
    Options of a [`CLIPImageProcessor`] for the images of an external guide: its own, but squeezed into the square and
    not cropped to it, as the LVLM sees the whole image too.

    Args:
        name (`str`): Hub id or folder of the CLIP.
        kwargs: those of `from_pretrained` that say how to reach the Hub.

    Raises:
        ValueError: it is no CLIP.
    """
    config: Any = AutoConfig.from_pretrained(name, **kwargs)
    if not isinstance(config, CLIPConfig):
        raise ValueError(
            f"The guide {str(name)!r} is a {config.model_type!r}; beside a tower that was trained with no text tower "
            "stands a CLIP, such as openai/clip-vit-large-patch14-336."
        )
    own: Any = AutoImageProcessor.from_pretrained(name, **kwargs)
    side = config.vision_config.image_size
    moments = {"image_mean": list(own.image_mean), "image_std": list(own.image_std)}
    return {"size": {"height": side, "width": side}, "do_center_crop": False} | moments


def map_onto_grids(values: torch.Tensor, grids: Sequence[Sequence[int]]) -> torch.Tensor:
    """
    Values on the guide's square grid, at the tokens of each image: both grids cover the whole image. Bilinear where
    the image's grid is finer and, with antialiasing, a weighted mean of what a token covers where it is coarser.
    Similarity is linear in the patches, so that of mapped patches is the mapped similarity.

    Args:
        values (`torch.Tensor` of shape `(B, n * n)` or `(B, n * n, P)`): in raster order.
        grids (`list[list[int]]`): height and width of each image's grid.

    Returns:
        `torch.Tensor` of shape `(B, N)` or `(B, N, P)`: in raster order, 0 behind the tokens of smaller images.
    """
    side = round(values.shape[1] ** 0.5)
    # In float32, as antialiasing is not made for half precision everywhere
    maps = values if values.ndim > 2 else values[..., None]
    maps = maps.float().transpose(1, 2).unflatten(2, (side, side))
    resized = [
        nn.functional.interpolate(one[None], tuple(grid), mode="bilinear", antialias=True)[0].flatten(1).T
        for one, grid in zip(maps, grids, strict=True)
    ]
    mapped = nn.utils.rnn.pad_sequence(resized, batch_first=True).to(values.dtype)
    return mapped if values.ndim > 2 else mapped[..., 0]


__all__ = ["LiteLVLMExternalGuide", "guide_image_options", "map_onto_grids"]
