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
"""Scenes of RefShapes as pixels: the image, and the visible mask of each object."""

from functools import cache

import numpy as np

from .scenes import COLOURS, RefObject


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are inside a shape of radius 1 around the origin (y points down); bool, same shape."""
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.85
    if shape == "diamond":
        return abs(x) + abs(y) < 1.1
    if shape == "triangle":
        return (abs(x) < 0.58 * (y + 1)) & (y < 0.75)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1)
    distance = np.hypot(x, y)
    if shape == "ring":
        return (distance < 1) & (distance > 0.55)
    if shape == "hexagon":
        return distance * np.cos((np.arctan2(y, x) % (np.pi / 3)) - np.pi / 6) < np.cos(np.pi / 6)
    if shape == "star":
        # In each tenth of the circle a straight edge from a tip at radius 1 to a notch at radius 0.45
        tenth = np.pi / 5
        angle = abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
        notch_x, notch_y = 0.45 * np.cos(tenth), 0.45 * np.sin(tenth)
        return distance * (notch_y * np.cos(angle) + (1 - notch_x) * np.sin(angle)) < notch_y
    return distance < 1  # circle


@cache
def shape_area(shape: str) -> float:
    """Area of a shape as a share of the circle around it."""
    grid = np.meshgrid(np.linspace(-1.2, 1.2, 480), np.linspace(-1.2, 1.2, 480))
    return float(inside(shape, *grid).sum() / (np.hypot(*grid) < 1).sum())


def draw(
    objects: tuple[RefObject, ...], size: int, rng: np.random.Generator, cluttered: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image `(size, size, 3)` uint8 and visible masks `(num_objects, size, size)` bool, later objects on top."""
    image = _background(size, rng)
    if cluttered:
        _add_clutter(image, rng)
    masks = np.zeros((len(objects), size, size), dtype=bool)
    # Two samples per pixel and axis, so that edges are as smooth as those of an image that was reduced
    edges = np.arange(size) / size
    for index, thing in enumerate(objects):
        x0, y0 = thing.centre
        columns, rows = (np.flatnonzero(abs(edges - c) < 1.1 * thing.radius + 1 / size) for c in (x0, y0))
        samples = np.array([0.25, 0.75]) / size
        x, y = np.meshgrid(*((edges[k][:, None] + samples).ravel() - c for k, c in ((columns, x0), (rows, y0))))
        covered = inside(thing.shape, x / thing.radius, y / thing.radius)
        colour = np.array(COLOURS[thing.colour], dtype=np.float32)
        # Dark colours take light patterns and light ones dark, so that the colour itself stays readable
        other = colour + (np.float32(110) if colour.mean() < 60 else -0.5 * colour)
        surface = np.where(_pattern(thing.texture, x, y)[..., None], other, colour)
        shading = 1 + 0.12 * (x + y) / thing.radius * rng.uniform(-1, 1)
        paint = _per_pixel(surface * (shading * covered)[..., None])
        share = _per_pixel(covered[..., None].astype(np.float32))
        window = np.ix_(rows, columns)
        image[window] = image[window] * (1 - share) + paint
        # A pixel belongs to the mask if its centre does
        x, y = np.meshgrid(*(edges[k] + 0.5 / size - c for k, c in ((columns, x0), (rows, y0))))
        masks[index][window] = inside(thing.shape, x / thing.radius, y / thing.radius)
        masks[:index, rows[:, None], columns] &= ~masks[index][window]
    image += rng.normal(0, rng.uniform(0, 6), image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), masks


def _per_pixel(samples: np.ndarray) -> np.ndarray:
    """Mean of each pixel's 2 x 2 samples: `(2 H, 2 W, C)` to `(H, W, C)`."""
    height, width, channels = samples.shape
    return samples.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def _pattern(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the second tone of a texture is; x and y as fractions of the image's side from the object's centre."""
    period = 0.055
    if texture == "striped":
        return ((x + y) / period) % 1 < 0.42
    if texture == "checkered":
        return (np.floor(x / period * 1.6) + np.floor(y / period * 1.6)) % 2 == 0
    if texture == "dotted":
        return np.hypot((x / period) % 1 - 0.5, (y / period) % 1 - 0.5) < 0.33
    return np.zeros(x.shape, dtype=bool)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A muted surface, float32 `(size, size, 3)`: plain, a gradient, soft noise or faint stripes."""
    base = rng.uniform(80, 190) + rng.uniform(-14, 14, 3)
    kind = rng.integers(4)
    ramp = np.linspace(-1, 1, size)
    if kind == 0:
        change = np.zeros((size, size))
    elif kind == 1:
        change = rng.uniform(-25, 25) * ramp[:, None] + rng.uniform(-25, 25) * ramp[None]
    elif kind == 2:
        coarse = rng.uniform(-22, 22, (9, 9))
        position = np.linspace(0, 7.999, size)
        low, part = position.astype(int), (position % 1)[:, None]
        rows = coarse[low] * (1 - part) + coarse[low + 1] * part
        change = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
    else:
        wave = rng.uniform(-1, 1, 2)
        change = rng.uniform(4, 16) * np.sign(np.sin(40 * (wave[0] * ramp[:, None] + wave[1] * ramp[None])))
    return (base + change[..., None]).astype(np.float32)


def _add_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Faint bars and specks, too thin or too small for any object, painted into a background in place."""
    size = len(image)
    centres = (np.arange(size) + 0.5) / size
    for _ in range(rng.integers(3, 9)):
        change = rng.uniform(-45, 45, 3).astype(np.float32)
        (x0, y0), angle, is_bar = rng.uniform(0, 1, 2), rng.uniform(0, np.pi), rng.random() < 0.6
        x, y = centres[None] - x0, centres[:, None] - y0
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        half = (rng.uniform(0.1, 0.4), 0.008) if is_bar else (0.022, 0.022)
        image[(abs(along) < half[0]) & (abs(across) < half[1])] += change


__all__ = ["draw", "inside", "shape_area"]
