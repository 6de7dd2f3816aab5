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
"""cIoU and gIoU by hand."""

import numpy as np
import pytest

from litelvlm.evaluation.metrics import CumulativeIoU


def mask(*pixels):
    flat = np.zeros(9, dtype=bool)
    flat[list(pixels)] = True
    return flat.reshape(3, 3)


def test_ciou_sums_pixels_and_giou_means_masks():
    metric = CumulativeIoU()
    metric.update(np.stack([mask(0, 1), mask(4)]), np.stack([mask(1, 2), mask(4)]))
    assert metric.ciou == pytest.approx((1 + 1) / (3 + 1)) and metric.giou == pytest.approx((1 / 3 + 1) / 2)


def test_missing_masks_count_as_empty_and_empty_pairs_as_right():
    metric = CumulativeIoU()
    metric.update(np.zeros((0, 3, 3), bool), np.stack([mask(0, 1)]))
    assert metric.ciou == 0 and metric.giou == 0
    metric.update(np.zeros((0, 3, 3), bool), np.stack([mask()]))
    assert metric.giou == 0.5
    metric.update(np.stack([mask(0), mask(1)]), np.stack([mask(0)]))  # the surplus mask is not counted
    assert metric.per_mask[-1] == 1
