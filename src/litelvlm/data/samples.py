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
"""What every dataset of referring expressions yields, and how masks are stored in annotations."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from ..modeling.images_litelvlm import load_rgb

IGNORED = 255
"""Value of mask pixels that are neither inside nor outside: they are left out of every count."""


@dataclass(frozen=True)
class Referring:
    """
    Args:
        id (`str`): of the expression; unique in its split.
        text (`str`): the expression, such as `"the dog on the left"`.
        load_mask (callable): gives the mask, shape `(H, W)`, uint8: 1 inside, 0 outside, [`IGNORED`] neither; or
            `None` where nothing in the image is meant. Raises [`BrokenAnnotation`].
        question_template (`str`, *optional*): replaces the processor's for this expression; `"{}"` for a text that is
            a question by itself.
    """

    id: str
    text: str
    load_mask: Callable[[], np.ndarray | None]
    question_template: str | None = None


@dataclass(frozen=True)
class ReferringImage:
    """
    An image and what is asked of it; images and masks are read when they are needed.

    Args:
        id (`str`): of the image; unique in its split.
        load_image (callable): gives the image, upright RGB. Raises [`BrokenAnnotation`].
        expressions (`tuple[Referring, ...]`): at least one.
    """

    id: str
    load_image: Callable[[], Image.Image]
    expressions: tuple[Referring, ...]


class BrokenAnnotation(ValueError):
    """An image or an annotation that cannot be read; the message names its file and its id."""


def broken(message: str) -> NoReturn:
    """The loader of an image or mask that is known to be broken already: raises [`BrokenAnnotation`]."""
    raise BrokenAnnotation(message)


def required(name: str) -> ModuleType:
    """
    A library that only evaluation needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(
            f'The library {package!r} is not installed; install it with pip install "litelvlm[eval]".'
        ) from error


def read_image(path: Path, name: str) -> Image.Image:
    """The image in a file; raises [`BrokenAnnotation`] with `name` and the reason where it cannot be read."""
    try:
        return load_rgb(path)
    except ValueError as error:
        raise BrokenAnnotation(f"{name}: {error}") from error


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """
    A mask as COCO stores it: a list of polygons `[x0, y0, x1, y1, ...]`, or run lengths `{"size", "counts"}`,
    compressed or not.

    Returns:
        `np.ndarray` of shape `(height, width)`, uint8: 1 inside, 0 outside.

    Raises:
        ValueError: it is none of these, or of another size.
    """
    coder: Any = required("pycocotools.mask")
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"run lengths of size {list(segmentation['size'])} for an image of {[height, width]}")
        runs = segmentation
        if isinstance(runs["counts"], list):
            if sum(runs["counts"]) != height * width:
                raise ValueError(f"run lengths of {sum(runs['counts'])} pixels for an image of {height * width}")
            runs = coder.frPyObjects(runs, height, width)
        return coder.decode(runs)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("a segmentation that is neither polygons nor run lengths")
    for polygon in segmentation:
        numbers = isinstance(polygon, list) and all(isinstance(value, (int, float)) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon without three points")
    return coder.decode(coder.merge(coder.frPyObjects(segmentation, height, width)))


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask `(H, W)` of 0 and 1 as compressed run lengths that JSON can hold."""
    runs = required("pycocotools.mask").encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in runs["size"]], "counts": runs["counts"].decode("ascii")}


__all__ = [
    "IGNORED",
    "BrokenAnnotation",
    "Referring",
    "ReferringImage",
    "broken",
    "decode_segmentation",
    "encode_mask",
    "read_image",
    "required",
]
