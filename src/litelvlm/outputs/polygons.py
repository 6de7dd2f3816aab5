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
"""The outlines of a mask as polygons that give the mask when they are drawn again."""

from typing import Any

import numpy as np

from ..extras import required


def outline_edges(mask: np.ndarray) -> list[list[np.ndarray]]:
    """
    The parts of a mask, outlined along the edges of its pixels: pixel i spans i to i + 1, as COCO and YOLO count.

    Args:
        mask (`np.ndarray` of shape `(H, W)`, bool).

    Returns:
        `list[list[np.ndarray]]`: for each part its outer ring, then those of its holes: `(num_points, 2)`, int64, x
        and y.
    """
    # Each pixel twice, a quarter from its edges: halfway between two pixels lies the edge that they share
    return _rings(mask, 0.5, 2)


def outline_pixels(mask: np.ndarray) -> list[list[np.ndarray]]:
    """As [`outline_edges`], through the outermost pixels themselves: pixel i is at i, and drawn too, as by LabelMe."""
    return _rings(mask, 0.99, 1)


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """
    One ring of several, for formats that know neither holes nor parts: each is reached from another and left on the
    same way, which encloses nothing.

    Args:
        rings: as [`outline_edges`] gives them.

    Returns:
        `np.ndarray` of shape `(num_points, 2)`.
    """
    # From left to right: what lies left of a hole is then joined already, and the way there is inside the mask
    outer, *others = rings
    joined = outer
    for ring in sorted(others, key=lambda ring: ring[:, 0].min()):
        start = ring[:, 0].argmin()
        x, y = ring[start]
        left = np.flatnonzero((joined[:, 1] == y) & (joined[:, 0] <= x))
        nearest = left[joined[left, 0].argmax()] if len(left) else abs(joined - ring[start]).sum(axis=1).argmin()
        around = np.concatenate([ring[start:], ring[: start + 1]])
        joined = np.concatenate([joined[: nearest + 1], around, joined[nearest:]])
    return _without_straight_points(joined)


def _rings(mask: np.ndarray, level: float, repeats: int) -> list[list[np.ndarray]]:
    contourpy: Any = required("contourpy", "formats")
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    # With a border outside, so that what touches the edge of the image is closed there
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).repeat(repeats, 0).repeat(repeats, 1)
    y, x = ((np.arange(size) + 0.5) / repeats - 1 - (repeats == 1) / 2 for size in part.shape)
    generator = contourpy.contour_generator(x + left, y + top, part, fill_type=contourpy.FillType.OuterOffset)
    parts = []
    for points, offsets in zip(*generator.filled(level, np.inf), strict=True):
        rings = np.split(points.round().astype(np.int64), offsets[1:-1])
        parts.append([ring[:-1] for ring in rings])  # the last point is the first again
    return parts


def _without_straight_points(ring: np.ndarray) -> np.ndarray:
    """Without points at which the ring goes straight on; where it turns back on itself they stay."""
    moves = (ring != np.roll(ring, 1, axis=0)).any(axis=1)
    if not moves.any():  # a single pixel
        return ring[:1]
    ring = ring[moves]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[turns | ((before * after).sum(axis=1) < 0)]


__all__ = ["join_rings", "outline_edges", "outline_pixels"]
