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
"""Figures of videos: means over frames, then over expressions, by hand."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

import litelvlm
from litelvlm.data.refshapes import MovingRefShapes
from litelvlm.data.registry import clip_entries
from litelvlm.data.samples import BrokenAnnotation, Referring, ReferringVideo
from litelvlm.evaluation.video_metrics import contour_accuracy, region_similarity
from litelvlm.evaluation.videos import measure_videos, video_figures


def video(masks, num_frames=2, text="the red circle"):
    frame = partial(Image.new, "RGB", (64, 48), (128, 128, 128))
    return ReferringVideo("v", (frame,) * num_frames, (Referring("v-0", text, lambda: masks),))


def test_figures_are_those_of_the_masks(embedded):
    (clip,) = clip_entries(MovingRefShapes(1, num_frames=3))
    rows = list(measure_videos(*embedded, [clip], pruning_method="none"))
    frames = [load() for load in clip.load_frames]
    for row, expression in zip(rows, clip.expressions, strict=True):
        masks = litelvlm.segment_video(*embedded, frames, expression.text, pruning_method="none").masks
        pair = masks[0].numpy(), expression.load_mask()
        assert (row["video"], row["expression"]) == (clip.id, expression.id)
        assert row["j"] == pytest.approx(region_similarity(*pair).mean()) and row["j"] > 0.5
        assert row["f"] == pytest.approx(contour_accuracy(*pair).mean())


def test_answer_without_masks_counts_as_empty_ones(embedded):
    masks = np.zeros((2, 48, 64), np.uint8)
    (row,) = measure_videos(*embedded, [video(masks)])
    assert (row["j"], row["f"]) == (1, 1)
    masks[1, 10:20, 10:20] = 1
    (row,) = measure_videos(*embedded, [video(masks)])
    assert (row["j"], row["f"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (None, r"v-0 has no masks; its frames are \(2, 48, 64\)"),
        (np.zeros((1, 48, 64)), r"v-0 has masks of shape \(1, 48, 64\)"),
    ],
)
def test_masks_that_do_not_fit_are_broken_annotations(embedded, masks, message):
    with pytest.raises(BrokenAnnotation, match=message):
        list(measure_videos(*embedded, [video(masks)]))


def test_figures_are_means_over_expressions_with_intervals_over_videos():
    rows = [
        {"video": str(i // 2), "j": j, "f": f} for i, (j, f) in enumerate([(1, 0.5), (0.5, 0), (0, 1), (0.5, 0.5)])
    ]
    figures = video_figures(rows)
    assert (figures["j"], figures["f"], figures["j_and_f"]) == (50, 50, 50)
    assert (figures["j_low"], figures["j_high"]) == (25, 75)
    alone = video_figures(rows[:1])
    assert (alone["j_and_f_low"], alone["j_and_f"], alone["j_and_f_high"]) == (75, 75, 75)
