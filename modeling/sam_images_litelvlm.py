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
Images as SAM and SAM 2 take them, and masks back at their size. Both see squares: SAM pads an image to one, and SAM 2
stretches it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Sam2ImageProcessor


def model_type(image_processor: Any) -> str:
    """Of the SAM that this image processor prepares images for, `"sam"` or `"sam2"`."""
    return "sam2" if isinstance(image_processor, Sam2ImageProcessor) else "sam"


def side_of(size: Any) -> int:
    """Of the square that an image processor's `size` or `mask_size` stands for."""
    return size["longest_edge"] or size["height"]


def prepare_images(image_processor: Any, images: Sequence[Any]) -> dict[str, torch.Tensor]:
    """
    Returns:
        `sam_pixel_values` `(b, 3, S, S)`, and `original_sizes` and `reshaped_input_sizes`, `(b, 2)`: height and width
        of each image, and of what it fills of its square.
    """
    prepared = image_processor(images, return_tensors="pt")
    sizes = torch.as_tensor(prepared["original_sizes"])
    if model_type(image_processor) == "sam2":
        reshaped = torch.full_like(sizes, side_of(image_processor.size))
    else:
        reshaped = torch.as_tensor(prepared["reshaped_input_sizes"])
    return {
        "sam_pixel_values": prepared["pixel_values"],
        "original_sizes": sizes,
        "reshaped_input_sizes": reshaped,
    }


def place_masks(image_processor: Any, masks: torch.Tensor) -> torch.Tensor:
    """Masks `(num_masks, H, W)` by area in SAM's square, `(num_masks, h, h)`, float32; -1 where it is padded."""
    side = side_of(image_processor.mask_size)
    height = width = side
    if model_type(image_processor) == "sam":
        scale = side / max(masks.shape[-2:])
        height, width = (int(edge * scale + 0.5) for edge in masks.shape[-2:])
    labels = masks.new_full((len(masks), side, side), -1)
    if len(masks):
        resized = torch.nn.functional.interpolate(masks[:, None], (height, width), mode="area")[:, 0]
        labels[:, :height, :width] = (resized > 0.5).float()
    return labels


def resize_masks(
    image_processor: Any,
    logits: torch.Tensor,
    original_size: Sequence[int],
    reshaped_input_size: Sequence[int],
    mask_threshold: float,
    binarize: bool,
) -> torch.Tensor:
    """Low-resolution logits `(num_masks, h, h)` at the size of their image, by SAM's own post-processing."""
    if not len(logits):  # which its code does not resize
        dtype = torch.bool if binarize else torch.float32
        return torch.zeros((0, *original_size), dtype=dtype, device=logits.device)
    sizes = [[original_size]] if model_type(image_processor) == "sam2" else [[original_size], [reshaped_input_size]]
    # In float32, as bilinear resizing of half precision is not supported everywhere
    resized = image_processor.post_process_masks(
        [logits.float()[:, None]], *sizes, mask_threshold=mask_threshold, binarize=binarize
    )
    return resized[0][:, 0]


__all__ = ["model_type", "place_masks", "prepare_images", "resize_masks", "side_of"]
