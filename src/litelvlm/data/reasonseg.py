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
ReasonSeg in its official layout: `root/ReasonSeg/val/*.jpg`, with a JSON of polygons beside each image.

Source: Lai et al., "LISA: Reasoning Segmentation via Large Language Model" (CVPR 2024). As in its evaluation, the
first text of each image is asked; larger areas are drawn first, and those labelled "ignore" are not counted.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .samples import IGNORED, BrokenAnnotation, Referring, ReferringImage, broken, read_image

SPLITS = ("val", "test")
SENTENCE_TEMPLATE = "{} Please output segmentation mask."
"""For texts that are sentences by themselves; other texts are put into the processor's template."""


def load_reasonseg(root: str | Path, split: str) -> list[ReferringImage]:
    """
    A split, one entry per image by file name.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """
    folder = Path(root) / "ReasonSeg" / split
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        raise ValueError(f"There is no image in '{folder}'; --data-root names the folder that holds 'ReasonSeg'.")
    return [_entry(path) for path in paths]


def _entry(path: Path) -> ReferringImage:
    annotation = path.with_suffix(".json")
    try:
        data = json.loads(_text(annotation))
        text, is_sentence = data["text"], data["is_sentence"]
        text = text if isinstance(text, str) else text[0]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        unread = partial(broken, f"'{annotation}' cannot be read: {error!r}.")
        return ReferringImage(path.stem, unread, (Referring(path.stem, path.stem, unread),))
    question_template = SENTENCE_TEMPLATE if is_sentence else None
    asked = Referring(path.stem, text.strip(), partial(_load_mask, path, data), question_template)
    return ReferringImage(path.stem, partial(read_image, path, f"image {path.stem}"), (asked,))


def _text(path: Path) -> str:
    """Some of the official files are not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return path.read_text(encoding="cp1252")


def _load_mask(path: Path, data: dict[str, Any]) -> np.ndarray:
    image = read_image(path, f"image {path.stem}")
    layers = []
    try:
        for shape in data["shapes"]:
            if "flag" in shape["label"].lower():  # marks the whole image and no area
                continue
            layer = Image.new("L", image.size, 0)
            corners = [(round(x), round(y)) for x, y in shape["points"]]
            ImageDraw.Draw(layer).polygon(corners, fill=1, outline=1)
            layers.append((np.asarray(layer) > 0, IGNORED if "ignore" in shape["label"].lower() else 1))
    except (KeyError, ValueError, TypeError) as error:
        raise BrokenAnnotation(f"'{path.with_suffix('.json')}': {error!r}.") from error
    mask = np.zeros(image.size[::-1], dtype=np.uint8)
    for layer, value in sorted(layers, key=lambda entry: -entry[0].sum()):
        mask[layer] = value
    return mask


__all__ = ["SENTENCE_TEMPLATE", "SPLITS", "load_reasonseg"]
