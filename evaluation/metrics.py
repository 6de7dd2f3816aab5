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
"""Segmentation metrics."""

from dataclasses import dataclass, field

import numpy as np


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


__all__ = ["CumulativeIoU"]
