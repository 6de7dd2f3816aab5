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
"""What every dataset of referring expressions yields, and how what cannot be read is named."""

import json
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from ..modeling.chat_litelvlm import half_of_character
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


@dataclass(frozen=True)
class ReferringVideo:
    """
    A video and what is asked of it; frames and masks are read when they are needed.

    Args:
        id (`str`): of the video; unique in its split.
        load_frames (`tuple` of callables): each gives a frame, upright RGB, all of one size. Raises
            [`BrokenAnnotation`].
        expressions (`tuple[Referring, ...]`): at least one; their `load_mask` gives the masks of all frames, shape
            `(F, H, W)`.
    """

    id: str
    load_frames: tuple[Callable[[], Image.Image], ...]
    expressions: tuple[Referring, ...]


class BrokenAnnotation(ValueError):
    """An image or an annotation that cannot be read; the message names its file and its id."""


def broken(message: str) -> NoReturn:
    """The loader of an image or mask that is known to be broken already: raises [`BrokenAnnotation`]."""
    raise BrokenAnnotation(message)


def broken_image(id: str, message: str) -> ReferringImage:
    """An annotation of which not even the image or the text can be told: it counts as one that is broken."""
    unread = partial(broken, message)
    return ReferringImage(id, unread, (Referring(id, "", unread),))


def broken_video(id: str, message: str) -> ReferringVideo:
    """As [`broken_image`], of a video."""
    unread = partial(broken, message)
    return ReferringVideo(id, (unread,), (Referring(id, "", unread),))


def refer(
    name: str, id: str, text: Any, load_mask: Callable[[], np.ndarray | None], question_template: str | None = None
) -> Referring:
    """What is asked by one text; a text that is none makes it broken, under the name of its annotation."""
    if fault := fault_of_text(text):
        return Referring(id, "", partial(broken, f"{name} has the text {reprlib.repr(text)}: {fault}."))
    return Referring(id, text.strip(), load_mask, question_template)


def fault_of_text(text: Any) -> str | None:
    """Why something cannot be asked as a text; `None` where it can."""
    if not isinstance(text, str) or not text.strip():
        return "allowed are texts that are not empty"
    half = half_of_character(text)
    return None if half is None else f"it {half}"


def is_id(value: Any) -> bool:
    """Whether JSON names an image or an annotation by a value: a whole number, or a text."""
    return type(value) in (int, str) and value != ""


def read_json(path: Path, text: str | None = None) -> Any:
    """What a JSON file holds, or the text of one that is read already; the ValueError says what is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8") if text is None else text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' cannot be read: {error}.") from error


def read_image(path: Path, name: str) -> Image.Image:
    """The image in a file; raises [`BrokenAnnotation`] with `name` and the reason where it cannot be read."""
    try:
        return load_rgb(path)
    except ValueError as error:
        raise BrokenAnnotation(f"{name}: {error}") from error


__all__ = [
    "IGNORED",
    "BrokenAnnotation",
    "Referring",
    "ReferringImage",
    "ReferringVideo",
    "broken",
    "broken_image",
    "broken_video",
    "fault_of_text",
    "is_id",
    "read_image",
    "read_json",
    "refer",
]
