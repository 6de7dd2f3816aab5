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
"""Clips of RefShapes: straight lines over a still background, occlusion, and expressions that stay true."""

import hashlib

import numpy as np
import pytest

from litelvlm.data.refshapes import MovingRefShapes, matches
from litelvlm.data.registry import load_videos


@pytest.fixture(scope="module")
def clips():
    data = MovingRefShapes(12, num_frames=16, size=64)
    return [data[i] for i in range(12)]


def test_shapes_and_dtypes(clips):
    for clip in clips:
        assert clip.frames.shape == (16, 64, 64, 3) and clip.frames.dtype == np.uint8
        assert clip.object_masks.shape == (len(clip.objects), 16, 64, 64)
        assert clip.masks.shape == (len(clip.expressions), 16, 64, 64) and clip.masks.dtype == bool


def test_background_and_colours_stay_while_objects_move(clips):
    for clip in clips:
        background = ~clip.object_masks.any(axis=(0, 1))
        # Objects' edges are smoothed into the pixel beside them
        background[1:-1, 1:-1] &= background[:-2, 1:-1] & background[2:, 1:-1]
        background[1:-1, 1:-1] &= background[1:-1, :-2] & background[1:-1, 2:]
        background[[0, -1]] = background[:, [0, -1]] = False
        still = clip.frames[:, background].astype(int)
        assert (still == still[0]).mean() > 0.97
        assert not (clip.object_masks[:, 0] == clip.object_masks[:, -1]).all()


def test_objects_go_straight_and_evenly(clips):
    """Seen in those that nothing hides: their centres are on a line, in equal steps."""
    seen = 0
    for masks in (masks for clip in clips for masks in clip.object_masks):
        areas = masks.sum(axis=(1, 2))
        if areas.min() < 0.93 * areas.max():
            continue
        centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
        steps = np.diff(centres, axis=0)
        assert abs(steps - steps.mean(axis=0)).max() < 1.01  # pixels, as masks are whole ones
        seen += 1
    assert seen > 5


def test_objects_hide_each_other_and_come_back(clips):
    shares = [masks.sum(axis=(1, 2)) / masks.sum(axis=(1, 2)).max() for clip in clips for masks in clip.object_masks]
    assert any(share[1:-1].min() < 0.3 and share[0] > 0.9 and share[-1] > 0.9 for share in shares)
    for clip in clips:
        assert (clip.object_masks.sum(axis=0) <= 1).all()  # a pixel shows one object
        assert clip.masks[:, 0].any(axis=(1, 2)).all()  # what is asked for is there at first


def test_expressions_name_looks_and_no_positions(clips):
    kinds = {expression.kind for clip in clips for expression in clip.expressions}
    assert kinds == {"attribute", "negation", "plural"}
    for clip in clips:
        for expression in (e for e in clip.expressions if e.kind == "attribute"):
            (target,) = expression.targets
            words = expression.text.split()
            thing = clip.objects[target]
            said = {
                name: getattr(thing, name) for name in ("size", "texture", "colour") if getattr(thing, name) in words
            }
            said |= {"shape": thing.shape} if thing.shape in words else {}
            assert sum(matches(other, said) for other in clip.objects) == 1


def test_clips_are_fixed_by_seed_and_index_at_any_length_and_size(clips):
    again = MovingRefShapes(20, num_frames=4, size=128)[3]
    assert again.objects == clips[3].objects
    for frame in (0, -1):
        one, two = again.object_masks[:, frame, ::2, ::2], clips[3].object_masks[:, frame]
        assert (one & two).sum() / (one | two).sum() > 0.85
    assert MovingRefShapes(20, seed=1, size=64)[3].objects != clips[3].objects


def test_clips_are_those_of_the_published_figures(clips):
    """Who changes what clips hold has to measure benchmarks/results/video.md anew."""
    asked = [
        (e.text, e.targets, masks.sum(axis=(1, 2)).tolist())
        for clip in clips
        for e, masks in zip(clip.expressions, clip.masks, strict=True)
    ]
    assert hashlib.sha256(repr(asked).encode()).hexdigest()[:16] == "b0fbf8818317f962"


def test_clips_are_read_as_videos(clips):
    videos = load_videos("refshapes", num_videos=2, size=64)
    assert [video.id for video in videos] == ["0", "1"]
    for video, clip in zip(videos, clips[:2], strict=True):
        assert [expression.text for expression in video.expressions] == [e.text for e in clip.expressions]
        np.testing.assert_array_equal(np.stack([frame() for frame in video.load_frames]), clip.frames)
        for expression, masks in zip(video.expressions, clip.masks, strict=True):
            np.testing.assert_array_equal(expression.load_mask(), masks)


def test_what_gives_no_clips_is_named():
    with pytest.raises(ValueError, match="`num_frames` 0"):
        MovingRefShapes(num_frames=0)
    with pytest.raises(IndexError):
        MovingRefShapes(2)[2]
    with pytest.raises(ValueError, match="no dataset of videos 'refcoco'; allowed are refshapes, ref-davis, ref-y"):
        load_videos("refcoco")
    with pytest.raises(ValueError, match="'ref-davis' has no split 'val'; it has valid, train"):
        load_videos("ref-davis", "val")
