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
"""J and F by hand, and by a plain loop over pixels."""

import numpy as np
import pytest

from litelvlm.data.samples import IGNORED
from litelvlm.evaluation.video_metrics import contour_accuracy, contours, region_similarity

SIDE = 240  # 0.8 % of the diagonal are 2.7 pixels: the tolerance is 3


def box(left, top, right, bottom, height=SIDE, width=SIDE):
    mask = np.zeros((1, height, width), dtype=bool)
    mask[:, top:bottom, left:right] = True
    return mask


def plain_contour(mask):
    """As DAVIS says it, pixel by pixel."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            others = {bool(mask[y, right]), bool(mask[below, x]), bool(mask[below, right])}
            if y == height - 1:
                others = {bool(mask[y, right])}
            if x == width - 1:
                others = {bool(mask[below, x])}
            found[y, x] = bool(others - {bool(mask[y, x])}) and (y, x) != (height - 1, width - 1)
    return found


def plain_dilation(mask, radius):
    grown = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for row in range(max(0, y - radius), min(mask.shape[0], y + radius + 1)):
            for column in range(max(0, x - radius), min(mask.shape[1], x + radius + 1)):
                grown[row, column] |= (row - y) ** 2 + (column - x) ** 2 <= radius**2
    return grown


def plain_f(predicted, expected):
    radius = int(np.ceil(0.008 * np.sqrt(sum(edge**2 for edge in expected.shape))))
    mine, theirs = plain_contour(predicted), plain_contour(expected)
    if not mine.any() or not theirs.any():
        precision, recall = float(not mine.any()), float(not theirs.any())
    else:
        precision = (mine & plain_dilation(theirs, radius)).sum() / mine.sum()
        recall = (theirs & plain_dilation(mine, radius)).sum() / theirs.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_equal_masks_have_1_and_those_apart_0():
    here, there = box(10, 10, 60, 60), box(150, 150, 200, 200)
    assert region_similarity(here, here) == 1 and contour_accuracy(here, here) == 1
    assert region_similarity(here, there) == 0 and contour_accuracy(here, there) == 0


def test_contour_within_the_tolerance_is_right_and_beyond_it_wrong():
    expected = box(40, 40, 100, 100)
    assert contour_accuracy(box(43, 40, 103, 100), expected) == 1  # 3 pixels to the right
    assert region_similarity(box(43, 40, 103, 100), expected) == pytest.approx(57 / 63)
    (beyond,) = contour_accuracy(box(44, 40, 104, 100), expected)
    # The two upright sides are off by 4 pixels, but near the corners the other two are not far
    assert 0.5 < beyond < 0.6
    assert contour_accuracy(box(46, 46, 94, 94), expected) == 0  # all sides are off by 6


def test_empty_masks_count_as_davis_counts_them():
    empty, full, some = np.zeros((1, 20, 30), bool), np.ones((1, 20, 30), bool), box(5, 5, 9, 9, 20, 30)
    assert region_similarity(empty, empty) == 1 and contour_accuracy(empty, empty) == 1
    for pair in ((empty, some), (some, empty)):
        assert region_similarity(*pair) == 0 and contour_accuracy(*pair) == 0
    # A full mask has no contour, as the edge of the image is none
    assert region_similarity(full, empty) == 0 and contour_accuracy(full, empty) == 1


@pytest.mark.parametrize("size", [(24, 40), (160, 130), (1, 7), (5, 1)])
def test_random_masks_agree_with_a_loop_over_pixels(size):
    rng = np.random.default_rng(sum(size))
    coarse = rng.random((2, 3, 4, 5)) < 0.5
    rows, columns = (np.arange(edge) * parts // edge for edge, parts in zip(size, (4, 5), strict=True))
    predicted, expected = coarse[:, :, rows][..., columns]
    assert np.array_equal(contours(expected), np.stack([plain_contour(mask) for mask in expected]))
    plain = [plain_f(*pair) for pair in zip(predicted, expected, strict=True)]
    np.testing.assert_allclose(contour_accuracy(predicted, expected), plain, rtol=0, atol=1e-12)


def test_ignored_pixels_are_outside_of_both_masks():
    expected = box(10, 10, 60, 60).astype(np.uint8)
    expected[:, 100:200, 100:200] = IGNORED
    predicted = box(10, 10, 60, 60) | box(120, 120, 150, 150)
    assert region_similarity(predicted, expected) == 1 and contour_accuracy(predicted, expected) == 1


def test_masks_of_another_shape_are_refused():
    for metric in (region_similarity, contour_accuracy):
        with pytest.raises(ValueError, match=r"shape \(1, 4, 4\) for expected ones of \(2, 4, 4\)"):
            metric(np.zeros((1, 4, 4), bool), np.zeros((2, 4, 4), bool))
