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
"""Scenes of RefShapes: objects with attributes, placed at random. Lengths are fractions of the image's side."""

from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 130, 30),
    "cyan": (40, 200, 210),
    "pink": (245, 130, 190),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "hexagon", "ring")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"small": 0.08, "medium": 0.115, "large": 0.165}  # radius, as a fraction of the image's side
ATTRIBUTES = ("size", "texture", "colour", "shape")


@dataclass(frozen=True)
class RefObject:
    """One object: its attributes; its centre (x, y) and its radius as fractions of the image's side."""

    shape: str
    colour: str
    texture: str
    size: str
    centre: tuple[float, float]
    radius: float


def matches(thing: RefObject, values: dict[str, str]) -> bool:
    """Whether an object has these attributes."""
    return all(getattr(thing, name) == value for name, value in values.items())


def random_scene(
    rng: np.random.Generator,
    num_objects: tuple[int, int],
    closeness: float = 0.92,
    size_shares: dict[str, float] | None = None,
) -> tuple[RefObject, ...]:
    """
    Objects whose centres are at least `closeness` times the sum of their radii apart. A scene has few shapes and
    colours, so that one attribute is seldom enough to name an object. Sizes are equally frequent, or as `size_shares`
    says.
    """
    colours = rng.choice(list(COLOURS), rng.integers(2, 6), replace=False)
    shapes = rng.choice(SHAPES, rng.integers(2, 5), replace=False)
    textured = rng.random() < 0.7
    sizes, shares = list(SIZES), None if size_shares is None else [size_shares[name] for name in SIZES]
    objects: list[RefObject] = []
    wanted = rng.integers(num_objects[0], num_objects[1] + 1)
    for _ in range(40 * wanted):
        size = str(rng.choice(sizes, p=shares))
        radius = SIZES[size] * rng.uniform(0.93, 1.07)
        x, y = rng.uniform(radius, 1 - radius, 2)
        if all(np.hypot(x - o.centre[0], y - o.centre[1]) > closeness * (radius + o.radius) for o in objects):
            texture = str(rng.choice(TEXTURES)) if textured else "plain"
            shape, colour = str(rng.choice(shapes)), str(rng.choice(colours))
            objects.append(RefObject(shape, colour, texture, size, (float(x), float(y)), float(radius)))
        if len(objects) == wanted:
            break
    return tuple(objects)


__all__ = ["ATTRIBUTES", "COLOURS", "SHAPES", "SIZES", "TEXTURES", "RefObject", "matches", "random_scene"]
