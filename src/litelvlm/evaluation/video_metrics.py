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
The metrics of video object segmentation, frame by frame: region similarity J, and contour accuracy F.

J is the IoU. F is the harmonic mean of precision and recall of the contours' pixels, where a pixel counts as right
within 0.8 % of the image's diagonal of the other contour. J&F is the mean of both.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016), and
the evaluation code of DAVIS 2017.
"""

from typing import Any

import numpy as np

from ..data.samples import IGNORED
from ..extras import required

CONTOUR_TOLERANCE = 0.008
"""Of the image's diagonal; in pixels it is rounded up."""


def region_similarity(predicted: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """
    J of each frame, from 0 to 1; a pair of empty masks counts 1.

    Args:
        predicted (`np.ndarray` of shape `(F, H, W)`, bool).
        expected (`np.ndarray` of shape `(F, H, W)`, uint8 or bool): 1 inside, 0 outside, [`IGNORED`] not counted.

    Returns:
        `np.ndarray` of shape `(F,)`, float64.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, inside = _without_ignored(predicted, expected)
    both, either = ((predicted & inside).sum((1, 2)), (predicted | inside).sum((1, 2)))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def contour_accuracy(predicted: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """
    F of each frame, from 0 to 1; a pair of masks without contours, which are empty or full, counts 1, and one beside a
    mask with a contour 0.

    Args:
        predicted, expected: as in [`region_similarity`].

    Returns:
        `np.ndarray` of shape `(F,)`, float64.

    Raises:
        ValueError: the shapes differ, or SciPy is not installed.
    """
    predicted, inside = _without_ignored(predicted, expected)
    radius = float(np.ceil(CONTOUR_TOLERANCE * np.hypot(*inside.shape[1:])))
    return np.array([_f_measure(*pair, radius) for pair in zip(contours(predicted), contours(inside), strict=True)])


def contours(masks: np.ndarray) -> np.ndarray:
    """
    The pixels of masks that differ from their neighbour to the right, below, or both, as DAVIS draws contours.

    Args:
        masks (`np.ndarray` of shape `(F, H, W)`, bool).

    Returns:
        `np.ndarray` of shape `(F, H, W)`, bool.
    """
    # Behind the last row and column they go on as they end, so that the edge of the image is no contour
    padded = np.pad(masks, ((0, 0), (0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
    return (masks ^ right) | (masks ^ below) | (masks ^ both)


def _without_ignored(predicted: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if predicted.shape != expected.shape or expected.ndim != 3:
        raise ValueError(
            f"Masks of shape {predicted.shape} for expected ones of {expected.shape}; allowed are equal (F, H, W)."
        )
    return predicted.astype(bool) & (expected != IGNORED), expected == 1


def _f_measure(predicted: np.ndarray, expected: np.ndarray, radius: float) -> float:
    """F of two contours `(H, W)`."""
    if not predicted.any() or not expected.any():
        return float(predicted.any() == expected.any())
    # A pixel is in the other contour, dilated by a disk, where the nearest pixel of that contour is in the disk
    distance: Any = required("scipy.ndimage").distance_transform_edt
    precision = (distance(~expected)[predicted] <= radius).mean()
    recall = (distance(~predicted)[expected] <= radius).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


__all__ = ["CONTOUR_TOLERANCE", "contour_accuracy", "contours", "region_similarity"]
