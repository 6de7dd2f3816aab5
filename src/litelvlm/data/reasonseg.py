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
ReasonSeg in its official layout: `root/ReasonSeg/val/*.jpg`, with a JSON of LabelMe's shapes beside each image.

Source: Lai et al., "LISA: Reasoning Segmentation via Large Language Model" (CVPR 2024). As in its evaluation, the
first text of each image is asked; larger areas are drawn first, and those labelled "ignore" are not counted.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .masks import draw_labelme_shape
from .samples import IGNORED, BrokenAnnotation, ReferringImage, broken_image, read_image, read_json, refer

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
        data = read_json(annotation, _text(annotation))
        text, is_sentence, shapes = data["text"], data["is_sentence"], data["shapes"]
        text = text[0] if isinstance(text, list) else text
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return broken_image(path.stem, f"'{annotation}' cannot be read: {error!r}.")
    question_template = SENTENCE_TEMPLATE if is_sentence else None
    asked = refer(f"'{annotation}'", path.stem, text, partial(_load_mask, path, shapes), question_template)
    return ReferringImage(path.stem, partial(read_image, path, f"image {path.stem}"), (asked,))


def _text(path: Path) -> str:
    """Some of the official files are not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return path.read_text(encoding="cp1252")


def _load_mask(path: Path, shapes: Any) -> np.ndarray:
    width, height = read_image(path, f"image {path.stem}").size
    mask, layers = np.zeros((height, width), dtype=np.uint8), []
    try:
        for shape in shapes:
            label = shape["label"].lower()
            if "flag" not in label:  # which marks the whole image and no area
                layers.append((draw_labelme_shape(shape, height, width), IGNORED if "ignore" in label else 1))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BrokenAnnotation(f"'{path.with_suffix('.json')}': {error!r}.") from error
    for layer, value in sorted(layers, key=lambda entry: -entry[0].sum()):
        mask[layer] = value
    return mask


__all__ = ["SENTENCE_TEMPLATE", "SPLITS", "load_reasonseg"]
