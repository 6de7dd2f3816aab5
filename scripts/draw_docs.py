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
"""Draws the images of the README and the pages with the embedded model: `python scripts/draw_docs.py docs`."""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

import litelvlm
from litelvlm.modeling.images_litelvlm import load_rgb
from litelvlm.modeling.pruning_litelvlm import retained_patches
from litelvlm.visualization import overlay_masks, overlay_tokens, side_by_side
from litelvlm.writing import replacing

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEXT = "the red circle"
BUDGETS = (85, 57, 28)  # the shares of the paper's 192, 128 and 64 of 576


def ask(model: Any, processor: Any, image: Image.Image, **options: Any) -> tuple[Any, Image.Image, Image.Image]:
    """What `segment` gives, the image with the tokens it keeps, and the image with its mask."""
    inputs = processor(images=image, text=TEXT)
    output = model.segment(**inputs, max_new_tokens=32, **options)
    (found,) = processor.post_process_instance_segmentation(output, inputs)
    patches = retained_patches(model.config, "litelvlm", inputs, output)
    masks = torch.stack([entry["mask"] for entry in found])
    return output, overlay_tokens(image, *patches, cropped=False), overlay_masks(image, masks)


def draw_selection(model: Any, processor: Any, image: Image.Image) -> Any:
    """The four things that the method looks at and gives, in their order."""
    output, tokens, masked = ask(model, processor, image)
    side = model.config.num_patches_per_side
    similarity = output.similarity[0, 0].view(side, side).float()
    contribution = output.contribution[0].view(side, side).float()
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
    axes[0].imshow(similarity, cmap="viridis")
    axes[1].imshow(contribution.clamp(min=1e-12).log(), cmap="viridis")
    axes[2].imshow(tokens)
    axes[3].imshow(masked)
    kept = model.config.num_retained_tokens
    titles = ("similarity to the text", "contribution to [CLS], log", f"kept: {kept} of {side * side}", "mask")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    return figure


def draw_budgets(model: Any, processor: Any, image: Image.Image) -> Any:
    """Tokens kept and mask at each budget."""
    figure, axes = plt.subplots(2, len(BUDGETS), figsize=(7.2, 5), layout="constrained")
    for column, budget in zip(axes.T, BUDGETS, strict=True):
        _, tokens, masked = ask(model, processor, image, num_retained_tokens=budget)
        column[0].set_title(f"{budget} of {model.config.num_patches}", fontsize=10)
        for axis, drawn in zip(column, (tokens, masked), strict=True):
            axis.imshow(drawn)
            axis.set_axis_off()
    return figure


def save(image: Image.Image, path: Path) -> None:
    """A palette keeps the file small, and what is drawn has few colours."""
    with replacing(path) as incomplete:
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(incomplete, format="PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="such as docs")
    folder = parser.parse_args().folder
    (folder / "images").mkdir(parents=True, exist_ok=True)
    model, processor = litelvlm.load_tiny()
    image = load_rgb(litelvlm.EXAMPLE_IMAGE)
    _, tokens, masked = ask(model, processor, image)
    sheet = side_by_side([tokens, masked])
    save(sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4)), folder / "overlay.png")
    for name, draw in (("selection", draw_selection), ("budgets", draw_budgets)):
        figure = draw(model, processor, image)
        figure.canvas.draw()
        save(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())), folder / "images" / f"{name}.png")
        plt.close(figure)


if __name__ == "__main__":
    main()
