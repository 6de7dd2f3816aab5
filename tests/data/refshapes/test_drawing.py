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
"""Scenes of RefShapes as pixels: exact masks, true colours, any size."""

import numpy as np

from litelvlm.data.refshapes import COLOURS, RefShapes, draw
from litelvlm.data.refshapes.drawing import inside


def test_clutter_hides_no_object():
    """The background may differ, the visible pixels of the objects stay."""
    scenes = RefShapes("testC", 20)
    for sample in (scenes[i] for i in range(20)):
        _, masks = draw(sample.objects, scenes.size, np.random.default_rng(0))
        np.testing.assert_array_equal(masks, sample.object_masks)


def test_masks_are_the_visible_pixels():
    """A pixel-by-pixel reference: the last object drawn over a pixel's centre owns it."""
    for index in range(4):
        sample = RefShapes("val", 10, size=64)[index]
        owner = np.full((64, 64), -1)
        for number, thing in enumerate(sample.objects):
            for row in range(64):
                for column in range(64):
                    x = ((column + 0.5) / 64 - thing.centre[0]) / thing.radius
                    y = ((row + 0.5) / 64 - thing.centre[1]) / thing.radius
                    if max(abs(x), abs(y)) < 1.1 and inside(thing.shape, np.array(x), np.array(y)):
                        owner[row, column] = number
        for number in range(len(sample.objects)):
            np.testing.assert_array_equal(sample.object_masks[number], owner == number)
        np.testing.assert_array_equal(sample.masks, [np.isin(owner, e.targets) for e in sample.expressions])


def test_objects_have_the_colour_that_is_said():
    scenes = RefShapes("val", 20)
    for i in range(20):
        sample = scenes[i]
        for thing, mask in zip(sample.objects, sample.object_masks, strict=True):
            if thing.texture == "plain":
                seen = sample.image[mask].astype(float).mean(axis=0)
                nearest = min(COLOURS, key=lambda name: np.linalg.norm(seen - COLOURS[name]))
                assert nearest == thing.colour


def test_geometry_does_not_depend_on_the_size():
    small, large = RefShapes("val", 3, size=128)[0], RefShapes("val", 3, size=256)[0]
    assert small.objects == large.objects
    reduced = large.object_masks[:, ::2, ::2]
    iou = (reduced & small.object_masks).sum() / (reduced | small.object_masks).sum()
    assert iou > 0.9
