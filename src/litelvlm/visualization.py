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
"""Pictures of what the model saw and answered."""

import torch
from PIL import Image, ImageDraw

MASK_COLOURS = ((235, 64, 52), (52, 152, 235), (245, 190, 40), (60, 180, 90))
SIMILARITY_COLOUR = (52, 152, 235)
CONTEXT_COLOUR = (245, 190, 40)


def overlay_masks(image: Image.Image, masks: torch.Tensor) -> Image.Image:
    """
    Lays masks over a picture, each in its colour with an outline; the rest is dimmed.

    Args:
        image (`PIL.Image`): RGB.
        masks (`torch.Tensor` of shape `(num_masks, height, width)`, bool): at the picture's size.
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
        similarity_aware, context_aware (`torch.Tensor` of shape `(N,)`, bool): N patches in raster order.
        cropped (`bool`): whether the vision tower sees the central square only, or the whole picture.
    """
    width, height = image.size
    side = round(similarity_aware.numel() ** 0.5)
    span_x, span_y = (min(width, height),) * 2 if cropped else (width, height)
    left, top = (width - span_x) / 2, (height - span_y) / 2
    picture = image.convert("RGB")
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 130))
    draw = ImageDraw.Draw(layer)
    for i in range(side * side):
        row, column = divmod(i, side)
        x0, x1 = (left + span_x * c / side for c in (column, column + 1))
        y0, y1 = (top + span_y * r / side for r in (row, row + 1))
        box = (round(x0), round(y0), round(x1) - 1, round(y1) - 1)
        if similarity_aware[i] or context_aware[i]:
            colour = SIMILARITY_COLOUR if similarity_aware[i] else CONTEXT_COLOUR
            draw.rectangle(box, fill=(*colour, 70), outline=(*colour, 220))
    picture.paste(layer, mask=layer.getchannel("A"))
    return picture


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one height in a row."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + 8 * (len(pictures) - 1), pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + 8
    return sheet


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Float32 values from 0 to 255, shape `(3, height, width)`."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.reshape(image.height, image.width, 3).permute(2, 0, 1).float()


def _to_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


__all__ = ["overlay_masks", "overlay_tokens", "side_by_side"]
