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
"""Splits of RefShapes: always the same scenes, those of the published figures."""

import hashlib

import numpy as np
import pytest

from litelvlm.data.refshapes import KINDS, SPLITS, RefShapes


def test_nothing_or_several_objects_share_one_mask():
    scenes = RefShapes("testC", 60)
    samples = [scenes[i] for i in range(60)]
    pairs = [(e, mask, s) for s in samples for e, mask in zip(s.expressions, s.masks, strict=True)]
    assert {e.kind for e, mask, _ in pairs if not mask.any()} == {"none"}
    expression, mask, sample = next(pair for pair in pairs if pair[0].kind == "plural")
    np.testing.assert_array_equal(mask, np.logical_or.reduce([sample.object_masks[i] for i in expression.targets]))


def test_small_objects_are_many_and_cover_few_patches():
    scenes = RefShapes("testS", 40, size=128)
    samples = [scenes[i] for i in range(40)]
    assert all(6 <= len(s.objects) <= 12 for s in samples)
    patches = np.concatenate([s.object_masks.sum(axis=(1, 2)) for s in samples]) / 8**2
    assert ((patches >= 2) & (patches <= 8)).mean() > 0.8
    assert {e.kind for s in samples for e in s.expressions} == set(KINDS)


def test_scenes_are_fixed_by_split_seed_and_index():
    one, two = RefShapes("val", 5), RefShapes("val", 5)
    for i in range(5):
        np.testing.assert_array_equal(one[i].image, two[i].image)
        assert one[i].expressions == two[i].expressions
    others = [RefShapes("val", 5, seed=1), *(RefShapes(split, 5) for split in SPLITS if split != "val")]
    assert all(other[0].objects != one[0].objects for other in others)


@pytest.mark.parametrize(
    ("split", "known"),
    [
        ("val", "89f43dd8e33ff01c"),
        ("testA", "db0d35c5813c2e51"),
        ("testB", "87c1bc1233136253"),
        ("testC", "32fca9a061709b6d"),
        ("testS", "be074e278776178d"),
    ],
)
def test_splits_are_those_of_the_published_figures(split, known):
    """Who changes what a split holds has to measure the model card's figures anew."""
    scenes = [RefShapes(split, 20)[i] for i in range(20)]
    asked = [
        (e.text, e.targets, int(mask.sum())) for s in scenes for e, mask in zip(s.expressions, s.masks, strict=True)
    ]
    assert hashlib.sha256(repr(asked).encode()).hexdigest()[:16] == known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"split": "test"},
            "`split` is 'test'; allowed are train, trainA, trainC, val, testA, testB, testC, trainS, testS",
        ),
        ({"split": "val", "length": 0}, "`length` is 0"),
        ({"split": "val", "size": 8}, "`size` 8"),
        ({"split": "val", "num_objects": (1, 4)}, r"`num_objects` is \(1, 4\)"),
        ({"split": "val", "num_objects": (5, 4)}, r"`num_objects` is \(5, 4\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RefShapes(**arguments)
    with pytest.raises(IndexError):
        RefShapes("val", 3)[3]
