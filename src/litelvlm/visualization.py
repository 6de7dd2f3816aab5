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
"""Images of what the model saw and answered: masks over the image, and the patches that it kept."""

import torch
from PIL import Image, ImageDraw

from .modeling.pruning_litelvlm import retained_patches

MASK_COLOURS = ((235, 64, 52), (52, 152, 235), (245, 190, 40), (60, 180, 90))
SIMILARITY_COLOUR = (52, 152, 235)
CONTEXT_COLOUR = (245, 190, 40)


def overlay_masks(image: Image.Image, masks: torch.Tensor) -> Image.Image:
    """
    Lays masks over an image, each in its colour with an outline; the rest is dimmed.

    Args:
        image (`PIL.Image`): RGB.
        masks (`torch.Tensor` of shape `(num_masks, height, width)`, bool): at the image's size.

    Returns:
        `PIL.Image`: RGB, of the image's size.
    """
    pixels = _to_tensor(image)
    if len(masks):
        pixels[:, ~masks.any(dim=0)] *= 0.6
    for i, mask in enumerate(masks):
        colour = torch.tensor(MASK_COLOURS[i % len(MASK_COLOURS)], dtype=torch.float32)[:, None]
        pixels[:, mask] = 0.5 * pixels[:, mask] + 0.5 * colour
        reach = max(2, min(mask.shape) // 128)
        grown = torch.nn.functional.max_pool2d(mask[None].float(), 2 * reach + 1, 1, reach)[0].bool()
        pixels[:, grown & ~mask] = colour
    return _to_image(pixels)


def overlay_tokens(
    image: Image.Image, similarity_aware: torch.Tensor, context_aware: torch.Tensor, cropped: bool
) -> Image.Image:
    """
    Marks the retained patches: similarity-aware ones blue, context-aware ones yellow, pruned ones dimmed.

    Args:
        image (`PIL.Image`): RGB.
        similarity_aware, context_aware (`torch.BoolTensor` of shape `(S, S)`): of [`retained_patches`].
        cropped (`bool`): whether the vision tower sees the central square only, or the whole image.

    Returns:
        `PIL.Image`: RGB, of the image's size.
    """
    width, height = image.size
    side = len(similarity_aware)
    span_x, span_y = (min(width, height),) * 2 if cropped else (width, height)
    left, top = (width - span_x) / 2, (height - span_y) / 2
    marked = image.convert("RGB")
    layer = Image.new("RGBA", marked.size, (0, 0, 0, 130))
    draw = ImageDraw.Draw(layer)
    for row, column in (similarity_aware | context_aware).nonzero().tolist():
        x0, x1 = (left + span_x * c / side for c in (column, column + 1))
        y0, y1 = (top + span_y * r / side for r in (row, row + 1))
        colour = SIMILARITY_COLOUR if similarity_aware[row, column] else CONTEXT_COLOUR
        x0, y0 = round(x0), round(y0)  # of an image with fewer pixels than patches, one pixel is several patches'
        box = (x0, y0, max(x0, round(x1) - 1), max(y0, round(y1) - 1))
        draw.rectangle(box, fill=(*colour, 70), outline=(*colour, 220))
    marked.paste(layer, mask=layer.getchannel("A"))
    return marked


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images of one height beside each other, with a white gap of 8 pixels."""
    sheet = Image.new("RGB", (sum(i.width for i in images) + 8 * (len(images) - 1), images[0].height), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + 8
    return sheet


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Float32 values from 0 to 255, shape `(3, height, width)`."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.reshape(image.height, image.width, 3).permute(2, 0, 1).float()


def _to_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


__all__ = ["overlay_masks", "overlay_tokens", "retained_patches", "side_by_side"]
