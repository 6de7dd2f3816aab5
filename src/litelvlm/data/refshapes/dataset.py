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
"""The splits of RefShapes: which kinds of expressions and scenes each has, and its samples by index."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .drawing import draw, shape_area
from .expressions import KINDS, Expression, random_expression
from .scenes import SIZES, RefObject, random_scene

# How often each kind is asked for, per split
_EVERY_KIND = dict(zip(KINDS, (0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1), strict=True))
SPLITS: dict[str, dict[str, float]] = {
    "train": _EVERY_KIND,
    "trainA": {"attribute": 1.0},
    "trainC": _EVERY_KIND,
    "val": _EVERY_KIND,
    "testA": {"attribute": 1.0},
    "testB": {"relation": 1.0},
    "testC": _EVERY_KIND,
    "trainS": _EVERY_KIND,
    "testS": _EVERY_KIND,
}
# Splits whose objects hide more of each other, in front of clutter
CLUTTERED = ("trainC", "testC", "trainS", "testS")
# Splits of many small objects, most of which cover 2 to 8 of 256 patches, so that a regular grid misses much of them:
# fewest and most objects, and how often each size is drawn
_SMALL = ("trainS", "testS")
_NUM_OBJECTS, _NUM_SMALL_OBJECTS = (3, 9), (6, 12)
_SMALL_SIZES = dict(zip(SIZES, (0.8, 0.17, 0.03), strict=True))

# Part of each scene's seed: a number, once given, stays
SPLIT_NUMBERS = {"train": 0, "val": 1, "testA": 2, "testB": 3, "trainA": 4, "trainC": 5, "testC": 6}
SPLIT_NUMBERS |= {"trainS": 7, "testS": 8, "moving": 9}


@dataclass(frozen=True)
class Sample:
    """
    Args:
        image (`np.ndarray` of shape `(size, size, 3)`, uint8): the drawn scene.
        object_masks (`np.ndarray` of shape `(num_objects, size, size)`, bool): visible pixels of each object.
        objects (`tuple[RefObject, ...]`): in drawing order.
        expressions (`tuple[Expression, ...]`): at least 1, each unambiguous.
    """

    image: np.ndarray
    object_masks: np.ndarray
    objects: tuple[RefObject, ...]
    expressions: tuple[Expression, ...]

    @property
    def masks(self) -> np.ndarray:
        """The mask of each expression, shape `(num_expressions, size, size)`, bool; empty where none is named."""
        return masks_of(self.object_masks, self.expressions)


def masks_of(object_masks: np.ndarray, expressions: Iterable[Expression]) -> np.ndarray:
    """Of each expression the pixels of its targets, in the shape that `object_masks` have for each object."""
    return np.stack([object_masks[list(expression.targets)].any(axis=0) for expression in expressions])


class RefShapes:
    """
    A split of RefShapes as a map-style dataset: item i is always the same [`Sample`].

    Args:
        split (`str`): `"train"` and `"val"` (every kind of expression), `"trainA"` and `"testA"` (attributes),
            `"testB"` (relations), `"trainC"` and `"testC"` (every kind, in cluttered scenes), `"trainS"` and `"testS"`
            (every kind, many small objects in cluttered scenes).
        length (`int`): number of images.
        size (`int`): side of the image in pixels.
        seed (`int`): another seed, another set; splits never share a scene.
        num_objects (`tuple[int, int]`, *optional*): fewest and most objects of a scene; 3 to 9 by default, 6 to 12 of
            small ones.
        max_expressions (`int`): most expressions of a scene; more than the protocol's 3 only serve to train.

    Raises:
        ValueError: unknown split, or numbers that give no scene.
    """

    def __init__(
        self,
        split: str,
        length: int = 500,
        size: int = 128,
        seed: int = 0,
        num_objects: tuple[int, int] | None = None,
        max_expressions: int = 3,
    ):
        if split not in SPLITS:
            raise ValueError(f"`split` is {split!r}; allowed are {', '.join(SPLITS)}.")
        if num_objects is None:
            num_objects = _NUM_SMALL_OBJECTS if split in _SMALL else _NUM_OBJECTS
        if length < 1 or size < 32:
            raise ValueError(f"`length` is {length} and `size` {size}; allowed are at least 1 and at least 32.")
        if not 2 <= num_objects[0] <= num_objects[1] <= 12:
            raise ValueError(f"`num_objects` is {num_objects}; allowed are 2 <= fewest <= most <= 12.")
        if max_expressions < 1:
            raise ValueError(f"`max_expressions` is {max_expressions}; allowed is at least 1.")
        self.split, self.length, self.size, self.seed, self.num_objects = split, length, size, seed, num_objects
        self.max_expressions = max_expressions

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of a split of {self.length}")
        rng = np.random.default_rng([SPLIT_NUMBERS[self.split], self.seed, index])
        return random_sample(
            rng,
            self.size,
            self.num_objects,
            SPLITS[self.split],
            self.split in CLUTTERED,
            self.max_expressions,
            _SMALL_SIZES if self.split in _SMALL else None,
        )


def random_sample(
    rng: np.random.Generator,
    size: int,
    num_objects: tuple[int, int] = _NUM_OBJECTS,
    kind_shares: dict[str, float] = _EVERY_KIND,
    cluttered: bool = False,
    max_expressions: int = 3,
    size_shares: dict[str, float] | None = None,
) -> Sample:
    """Draws scenes until one admits an expression of a wanted kind, and asks for some of its objects, none twice."""
    shares = [kind_shares.get(kind, 0.0) for kind in KINDS]
    while True:
        objects = random_scene(rng, num_objects, 0.75 if cluttered else 0.92, size_shares)
        image, masks = draw(objects, size, rng, cluttered)
        # Where later objects hide too much of one, an attribute may not be seen
        visible = masks.sum(axis=(1, 2)) / (np.pi * (size * np.array([o.radius for o in objects])) ** 2)
        needed = np.array([0.5 * shape_area(o.shape) if cluttered else 0.2 for o in objects])
        if masks.any(axis=(1, 2)).all() and (visible > needed).all():
            expressions: list[Expression] = []
            for _ in range(max_expressions + 1):
                expression = random_expression(rng, objects, str(rng.choice(KINDS, p=shares)))
                if (
                    len(expressions) < max_expressions
                    and expression
                    and expression.targets not in {e.targets for e in expressions}
                ):
                    expressions.append(expression)
            if expressions:
                return Sample(image, masks, objects, tuple(expressions))


__all__ = ["CLUTTERED", "SPLITS", "SPLIT_NUMBERS", "RefShapes", "Sample", "random_sample"]
