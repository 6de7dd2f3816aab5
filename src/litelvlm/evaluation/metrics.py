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
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..data.samples import IGNORED

THRESHOLDS = (0.5, 0.7, 0.9)


class PixelCounts(NamedTuple):
    """Pixels of one expression: of both masks, of either, of the predicted one and of the expected one."""

    intersection: int
    union: int
    predicted: int
    expected: int


def count_pixels(predicted: np.ndarray, expected: np.ndarray | None) -> PixelCounts:
    """
    Args:
        predicted (`np.ndarray` of shape `(H, W)`, bool).
        expected (`np.ndarray` of shape `(H, W)`, uint8, *optional*): 1 inside, 0 outside, [`IGNORED`] not counted;
            `None` where there is no target.
    """
    inside = np.zeros_like(predicted) if expected is None else expected == 1
    if expected is not None:
        predicted = predicted & (expected != IGNORED)
    both, either = (predicted & inside).sum(), (predicted | inside).sum()
    return PixelCounts(int(both), int(either), int(predicted.sum()), int(inside.sum()))


class Tally:
    """
    Figures of many expressions, in percent, with 95 % bootstrap confidence intervals over pictures.

    Args:
        images (`Sequence[str]`): the picture of each expression; resampling draws whole pictures.
        counts (`Sequence[PixelCounts]`): of each expression.
        seed (`int`): of the resampling; the same seed draws the same pictures for every tally of as many.
        num_resamples (`int`): how often to draw.
    """

    def __init__(self, images: Sequence[str], counts: Sequence[PixelCounts], seed: int = 0, num_resamples: int = 1000):
        table = np.array(counts, dtype=np.int64).reshape(-1, 4)
        intersection, union, predicted, expected = table.T
        iou = np.divide(intersection, union, out=np.ones(len(table)), where=union > 0)
        target = expected > 0
        columns = {
            "intersection": intersection,
            "union": union,
            "expressions": np.ones(len(table)),
            "iou": iou,
            "targets": target,
            "no_targets": ~target,
            "target_answered": target & (predicted > 0),
            "no_target_left": ~target & (predicted == 0),
        } | {f"reached_{threshold}": target & (iou >= threshold) for threshold in THRESHOLDS}
        drawn, sums = _resample(images, np.stack(list(columns.values()), axis=1), seed, num_resamples)
        self.num_images = drawn.shape[1]
        # First the figure itself, then those of the resamples
        self._sums = dict(zip(columns, (drawn @ sums).T, strict=True))

    def __getitem__(self, name: str) -> int:
        """A count: `"expressions"`, `"targets"`, `"no_targets"`, `"intersection"` or `"union"`."""
        return round(float(self._sums[name][0]))

    def _samples(self, name: str) -> np.ndarray:
        upper, lower = {
            "ciou": ("intersection", "union"),
            "giou": ("iou", "expressions"),
            "n_acc": ("no_target_left", "no_targets"),
            "t_acc": ("target_answered", "targets"),
        }.get(name) or (f"reached_{name.removeprefix('precision_')}", "targets")
        sums = self._sums
        return 100 * np.divide(sums[upper], sums[lower], out=np.full(len(sums[upper]), np.nan), where=sums[lower] > 0)

    def figures(self) -> dict[str, float | None]:
        """cIoU, gIoU, precision, N-acc and T-acc, each with `_low` and `_high`; `None` where nothing was counted."""
        names = ("ciou", "giou", *(f"precision_{threshold}" for threshold in THRESHOLDS), "n_acc", "t_acc")
        return {key: value for name in names for key, value in _with_interval(name, self._samples(name)).items()}

    def retention(self, everything: "Tally") -> dict[str, float | None]:
        """cIoU in percent of that of another tally over the same pictures, which are drawn together."""
        return _with_interval("retention", 100 * self._samples("ciou") / _nonzero(everything._samples("ciou")))


def mean_with_interval(
    images: Sequence[str], values: Sequence[float], seed: int = 0, num_resamples: int = 1000
) -> tuple[float, float, float]:
    """Mean of a value of each expression, and its 95 % bootstrap confidence interval over pictures."""
    table = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    drawn, sums = _resample(images, table, seed, num_resamples)
    total, number = (drawn @ sums).T
    means = total / number
    low, high = np.percentile(means[1:], (2.5, 97.5))
    return float(means[0]), float(low), float(high)


def _resample(
    images: Sequence[str], table: np.ndarray, seed: int, num_resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    How often each picture is drawn, `(1 + num_resamples, num_images)`, first each once; and the sums of the columns of
    `table` over each picture's expressions, `(num_images, num_columns)`: who draws a picture draws them all.
    """
    names, place = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, place, table.astype(np.float64))
    once = np.ones((1, len(names)))
    if not len(names):
        return once, sums
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [once, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=num_resamples)]
    ), sums


def _nonzero(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _with_interval(name: str, samples: np.ndarray) -> dict[str, float | None]:
    value, drawn = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
    if np.isnan(value) or not len(drawn):
        return {name: None if np.isnan(value) else value, f"{name}_low": None, f"{name}_high": None}
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


@dataclass
class CumulativeIoU:
    """
    cIoU (summed intersections / summed unions) and gIoU (mean of per-mask IoU; a pair of empty masks counts 1).
    """

    intersection: int = 0
    union: int = 0
    per_mask: list[float] = field(default_factory=list)

    def update(self, predicted: np.ndarray, expected: np.ndarray) -> None:
        """
        Adds mask pairs.

        Args:
            predicted (`np.ndarray` of shape `(num_masks, H, W)`, bool): `num_masks` may be smaller than expected, when
                an answer held too few masks; those count as empty. Surplus masks are not counted.
            expected (`np.ndarray` of shape `(num_masks, H, W)`, bool).
        """
        for i, truth in enumerate(expected):
            mask = predicted[i] if i < len(predicted) else np.zeros_like(truth)
            intersection, union = int((mask & truth).sum()), int((mask | truth).sum())
            self.intersection += intersection
            self.union += union
            self.per_mask.append(intersection / union if union else 1.0)

    @property
    def ciou(self) -> float:
        return self.intersection / self.union if self.union else 1.0

    @property
    def giou(self) -> float:
        return float(np.mean(self.per_mask)) if self.per_mask else float("nan")


__all__ = ["THRESHOLDS", "CumulativeIoU", "PixelCounts", "Tally", "count_pixels", "mean_with_interval"]
