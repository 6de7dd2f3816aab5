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
What the model saw and answered, over the image: masks, the patches that it kept, and their similarity to the text.
`overlay_*` give images; `plot_*` draw into axes of matplotlib, new ones by default, and return them.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from PIL import Image, ImageDraw

from .extras import required
from .modeling.images_litelvlm import load_rgb
from .modeling.pruning_litelvlm import retained_patches

MASK_COLOURS = ((235, 64, 52), (52, 152, 235), (245, 190, 40), (60, 180, 90))
SIMILARITY_COLOUR = (52, 152, 235)
CONTEXT_COLOUR = (245, 190, 40)


def overlay_masks(image: Any, masks: torch.Tensor) -> Image.Image:
    """
    Lays masks over an image, each in its colour with an outline; the rest is dimmed.

    Args:
        image: as [`load_rgb`] takes it.
        masks (`torch.Tensor` of shape `(num_masks, height, width)`, bool): at the image's size.

    Returns:
        `PIL.Image`: RGB, of the image's size.
    """
    pixels = _to_tensor(load_rgb(image))
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
    image: Any, similarity_aware: torch.Tensor, context_aware: torch.Tensor, cropped: bool
) -> Image.Image:
    """
    Marks the retained patches: similarity-aware ones blue, context-aware ones yellow, pruned ones dimmed.

    Args:
        image: as [`load_rgb`] takes it.
        similarity_aware, context_aware (`torch.BoolTensor` of shape `(S, S)`): of [`retained_patches`].
        cropped (`bool`): whether the vision tower sees the central square only, or the whole image.

    Returns:
        `PIL.Image`: RGB, of the image's size.
    """
    side = len(similarity_aware)
    marked = load_rgb(image)
    left, top, right, bottom = _seen(marked, cropped)
    span_x, span_y = right - left, bottom - top
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


def plot_masks(image: Any, results: Sequence[Mapping[str, Any]], ax: Any = None) -> Any:
    """
    The image with masks over it; the legend says their texts and scores.

    Args:
        image: what was asked about, as [`load_rgb`] takes it.
        results (`list[dict]`): of one conversation, of `post_process_instance_segmentation`.
        ax (`matplotlib.axes.Axes`, *optional*): to draw into.

    Returns:
        `matplotlib.axes.Axes`.

    Raises:
        ValueError: matplotlib is not installed, as in the other plots.
    """
    ax, image = _axes(ax), load_rgb(image)
    empty = torch.zeros((0, image.height, image.width), dtype=torch.bool)
    ax.imshow(overlay_masks(image, torch.stack([r["mask"].cpu() for r in results]) if results else empty))
    for i, result in enumerate(results):
        colour = [value / 255 for value in MASK_COLOURS[i % len(MASK_COLOURS)]]
        ax.scatter([], [], color=colour, marker="s", label=f"{result['label']} ({result['score']:.2f})")
    if results:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize="small", frameon=False)
    else:
        ax.set_title("no mask")
    return ax


def plot_tokens(
    image: Any,
    model: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    output: Any,
    pruning_method: str | None = None,
    ax: Any = None,
) -> Any:
    """
    The image with the patches whose tokens were retained: for their similarity blue, for the context yellow.

    Args:
        image: the first of `inputs`, as [`load_rgb`] takes it.
        model ([`LiteLVLMForSegmentation`]), processor ([`LiteLVLMProcessor`]): that made `output` and `inputs`.
        pruning_method (`str`, *optional*): of that call; by default the model's.
        ax (`matplotlib.axes.Axes`, *optional*): to draw into.

    Returns:
        `matplotlib.axes.Axes`.

    Raises:
        ValueError: see [`retained_patches`].
    """
    method = model.config.pruning_method if pruning_method is None else pruning_method
    similarity_aware, context_aware = retained_patches(model.config, method, inputs, output)
    ax = _axes(ax)
    ax.imshow(overlay_tokens(image, similarity_aware, context_aware, bool(processor.image_processor.do_center_crop)))
    ax.set_title(f"{(similarity_aware | context_aware).sum()} of {model.config.num_patches} tokens")
    return ax


def plot_similarity(image: Any, similarity: torch.Tensor, processor: Any, ax: Any = None) -> Any:
    """
    Similarity of each patch to a text, over the image: blue low and red high.

    Args:
        image: what was asked about, as [`load_rgb`] takes it.
        similarity (`torch.Tensor` of shape `(N,)`): such as `output.similarity[0, 0]`, of the first sample and text.
        processor ([`LiteLVLMProcessor`]): knows which part of the image the vision tower sees.
        ax (`matplotlib.axes.Axes`, *optional*): to draw into.

    Returns:
        `matplotlib.axes.Axes`.

    Raises:
        ValueError: the similarity is none of one square of patches.
    """
    side = isqrt(similarity.numel())
    if similarity.ndim != 1 or side**2 != len(similarity):
        raise ValueError(
            f"`similarity` has shape {tuple(similarity.shape)}; allowed is one text's, (N,) of N patches in a square, "
            "such as `output.similarity[0, 0]` of a model that does not cut images into crops."
        )
    ax, image = _axes(ax), load_rgb(image)
    left, top, right, bottom = _seen(image, bool(processor.image_processor.do_center_crop))
    ax.imshow(image.convert("L"), cmap="gray")
    values = similarity.float().cpu().view(side, side).numpy()
    ax.imshow(values, cmap="coolwarm", alpha=0.6, extent=(left, right, bottom, top))
    ax.set(xlim=(0, image.width), ylim=(image.height, 0))
    return ax


def _axes(ax: Any) -> Any:
    """The axes given, or those of a new figure, without ticks."""
    if ax is None:
        ax = required("matplotlib.pyplot").subplots(layout="constrained")[1]
    ax.axis("off")
    return ax


def _seen(image: Image.Image, cropped: bool) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in pixels, of what the vision tower sees: all, or the square in the middle."""
    width, height = image.size
    span_x, span_y = (min(width, height),) * 2 if cropped else (width, height)
    left, top = (width - span_x) / 2, (height - span_y) / 2
    return left, top, left + span_x, top + span_y


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Of an RGB image float32 values from 0 to 255, shape `(3, height, width)`."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.reshape(image.height, image.width, 3).permute(2, 0, 1).float()


def _to_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


__all__ = [
    "overlay_masks",
    "overlay_tokens",
    "plot_masks",
    "plot_similarity",
    "plot_tokens",
    "side_by_side",
]
