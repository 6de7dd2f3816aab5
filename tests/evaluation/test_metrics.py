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

from litelvlm.data.samples import IGNORED
from litelvlm.evaluation.metrics import CumulativeIoU, PixelCounts, Tally, count_pixels


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
    assert metric.counts[-1].iou == 1


def counts(predicted, expected):
    return count_pixels(predicted, None if expected is None else expected.astype(np.uint8))


def test_tally_gives_the_figures_of_hand_and_of_cumulative_iou():
    pairs = [
        ("a", mask(0, 1, 2, 3), mask(0, 1, 2)),  # IoU 0.75
        ("a", mask(), mask(5)),  # missed
        ("b", mask(), None),  # rightly nothing
        ("b", mask(7), None),  # something where nothing is meant
    ]
    figures = Tally([i for i, _, _ in pairs], [counts(p, e) for _, p, e in pairs]).figures()
    metric = CumulativeIoU()
    for _, predicted, expected in pairs:
        metric.update(predicted[None], (mask() if expected is None else expected)[None])
    assert figures["ciou"] == pytest.approx(100 * metric.ciou) == pytest.approx(100 * 3 / 6)
    assert figures["giou"] == pytest.approx(100 * metric.giou) == pytest.approx(100 * 1.75 / 4)
    assert (figures["precision_0.5"], figures["precision_0.7"], figures["precision_0.9"]) == (50, 50, 0)
    assert figures["n_acc"] == 50 and figures["t_acc"] == 50


def test_ignored_pixels_are_not_counted():
    expected = mask(0, 1).astype(np.uint8)
    expected.flat[[4, 5]] = IGNORED
    assert count_pixels(mask(1, 2, 4), expected) == (1, 3, 2, 2)


def test_bootstrap_draws_whole_images_and_the_same_for_the_same_seed():
    rng = np.random.default_rng(0)
    images = [str(i // 3) for i in range(60)]
    good = [PixelCounts(2 * int(n), 200, 200, 100) for n in rng.integers(20, 90, 60)]
    half = [count._replace(intersection=count.intersection // 2) for count in good]
    figures = Tally(images, good, seed=3).figures()
    assert figures == Tally(images, good, seed=3).figures() != Tally(images, good, seed=4).figures()
    assert figures["ciou_low"] < figures["ciou"] < figures["ciou_high"]
    # Images are drawn together, so a constant ratio has no spread
    retention = Tally(images, half, seed=3).retention(Tally(images, good, seed=3))
    assert retention == pytest.approx({"retention": 50, "retention_low": 50, "retention_high": 50})
    # All in one image: nothing else can be drawn
    one = Tally(["0"] * 60, good).figures()
    assert one["ciou_low"] == one["ciou"] == one["ciou_high"]


def test_nothing_counted_is_none_and_not_a_figure():
    figures = Tally([], []).figures()
    assert set(figures.values()) == {None}
    assert Tally(["a"], [PixelCounts(1, 1, 1, 1)]).figures()["n_acc"] is None
