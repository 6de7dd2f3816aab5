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
Segmentation metrics, from the pixels that are counted of each expression.

cIoU is the summed intersections over the summed unions, gIoU the mean IoU of the expressions, where a pair of empty
masks counts 1; precision at 0.5, 0.7 and 0.9 is the share of the expressions with a target whose IoU reaches it; N-acc
is the share of the expressions without a target that are answered by no mask or an empty one, and T-acc the share of
the others that are not (Liu et al., "GRES", CVPR 2023).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..data.samples import IGNORED
from .bootstrap import interval, resample

THRESHOLDS = (0.5, 0.7, 0.9)


class PixelCounts(NamedTuple):
    """Pixels of one expression: of both masks, of either, of the predicted one and of the expected one."""

    intersection: int
    union: int
    predicted: int
    expected: int

    @property
    def iou(self) -> float:
        """From 0 to 1; a pair of empty masks counts 1."""
        return self.intersection / self.union if self.union else 1.0


def count_pixels(predicted: np.ndarray, expected: np.ndarray | None) -> PixelCounts:
    """
    Args:
        predicted (`np.ndarray` of shape `(H, W)`, bool).
        expected (`np.ndarray` of shape `(H, W)`, uint8 or bool, *optional*): 1 inside, 0 outside, [`IGNORED`] not
            counted; `None` where there is no target.
    """
    inside = np.zeros_like(predicted) if expected is None else expected == 1
    if expected is not None:
        predicted = predicted & (expected != IGNORED)
    both, either = (predicted & inside).sum(), (predicted | inside).sum()
    return PixelCounts(int(both), int(either), int(predicted.sum()), int(inside.sum()))


class Tally:
    """
    Figures of many expressions, in percent, with 95 % bootstrap confidence intervals over images.

    Args:
        images (`Sequence[str]`): the image of each expression; resampling draws whole images.
        counts (`Sequence[PixelCounts]`): of each expression.
        seed (`int`): of the resampling; the same seed draws the same images for every tally of as many.
        num_resamples (`int`): how often to draw; 0 gives figures without intervals.
    """

    def __init__(self, images: Sequence[str], counts: Sequence[PixelCounts], seed: int = 0, num_resamples: int = 1000):
        intersection, union, predicted, expected = np.array(counts, dtype=np.int64).reshape(-1, 4).T
        iou = np.array([count.iou for count in counts], dtype=np.float64)
        target = expected > 0
        values = {
            "intersection": intersection,
            "union": union,
            "expressions": np.ones(len(counts)),
            "iou": iou,
            "targets": target,
            "no_targets": ~target,
            "target_answered": target & (predicted > 0),
            "no_target_left": ~target & (predicted == 0),
        } | {f"reached_{threshold}": target & (iou >= threshold) for threshold in THRESHOLDS}
        sums, self.num_images = resample(images, np.stack(list(values.values()), axis=1), seed, num_resamples)
        # Of each value first its sum itself, then those of the resamples
        self._sums = dict(zip(values, sums.T, strict=True))

    def __getitem__(self, name: str) -> int:
        """A count: `"expressions"`, `"targets"`, `"no_targets"`, `"intersection"` or `"union"`."""
        return round(float(self._sums[name][0]))

    def figures(self) -> dict[str, float | None]:
        """cIoU, gIoU, precision, N-acc and T-acc, each with `_low` and `_high`; `None` where nothing was counted."""
        names = ("ciou", "giou", *(f"precision_{threshold}" for threshold in THRESHOLDS), "n_acc", "t_acc")
        return {key: value for name in names for key, value in _with_interval(name, self._samples(name)).items()}

    def retention(self, everything: "Tally") -> dict[str, float | None]:
        """cIoU in percent of that of another tally over the same images, which are drawn together."""
        whole = everything._samples("ciou")
        return _with_interval("retention", 100 * self._samples("ciou") / np.where(whole > 0, whole, np.nan))

    def _samples(self, name: str) -> np.ndarray:
        upper, lower = {
            "ciou": ("intersection", "union"),
            "giou": ("iou", "expressions"),
            "n_acc": ("no_target_left", "no_targets"),
            "t_acc": ("target_answered", "targets"),
        }.get(name) or (f"reached_{name.removeprefix('precision_')}", "targets")
        sums = self._sums
        return 100 * np.divide(sums[upper], sums[lower], out=np.full(len(sums[upper]), np.nan), where=sums[lower] > 0)


def _with_interval(name: str, samples: np.ndarray) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval(samples), strict=True))


class CumulativeIoU:
    """cIoU and gIoU of masks that come one after the other, as fractions; `NaN` where nothing was counted."""

    def __init__(self) -> None:
        self.counts: list[PixelCounts] = []

    def update(self, predicted: np.ndarray, expected: np.ndarray) -> None:
        """
        Adds mask pairs.

        Args:
            predicted (`np.ndarray` of shape `(num_masks, H, W)`, bool): `num_masks` may be smaller than expected, when
                an answer held too few masks; those count as empty. Surplus masks are not counted.
            expected (`np.ndarray` of shape `(num_masks, H, W)`, bool).
        """
        for i, mask in enumerate(expected):
            self.counts.append(count_pixels(predicted[i] if i < len(predicted) else np.zeros_like(mask), mask))

    @property
    def ciou(self) -> float:
        return self._figure("ciou")

    @property
    def giou(self) -> float:
        return self._figure("giou")

    def _figure(self, name: str) -> float:
        percent = Tally([""] * len(self.counts), self.counts, num_resamples=0).figures()[name]
        return float("nan") if percent is None else percent / 100


__all__ = ["THRESHOLDS", "CumulativeIoU", "PixelCounts", "Tally", "count_pixels"]
