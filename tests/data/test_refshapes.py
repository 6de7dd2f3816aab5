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
"""RefShapes: always the same scenes, exact masks, and expressions that name one object only."""

import hashlib
import re

import numpy as np
import pytest

from litelvlm.data.refshapes import COLOURS, SHAPES, SIZES, SPLITS, TEXTURES, RefShapes, caption, draw, inside

WORDS = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "higher": (1, -1), "below": (1, 1), "lower": (1, 1)}
SUPERLATIVES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
PLACES = {"on the far left": (0, -1), "on the far right": (0, 1), "at the top": (1, -1), "at the bottom": (1, 1)}


def described(objects, words):
    """Indices of the objects that have every attribute a phrase names, read from its words alone."""
    named = {name: [w for w in words.split() if w in values] for name, values in WORDS.items()}
    return [i for i, o in enumerate(objects) if all(getattr(o, n) in found for n, found in named.items() if found)]


def referents(objects, text):
    """What an expression means, worked out from its words, independently of how it was made."""
    if text.startswith("all the "):
        words = [word.removesuffix("s") for word in text.removeprefix("all the ").split()]
        return described(objects, " ".join("cross" if word == "crosse" else word for word in words))
    text = text.removeprefix("the ")
    if " that is not " in text:
        head, denied = text.split(" that is not ")
        found = set(described(objects, head)) - set(described(objects, denied))
        return sorted(found)
    counted = re.fullmatch(r"(first|second|third|fourth) (.*) from the (left|right|top|bottom)", text)
    if counted:
        ordinal, head, end = counted.groups()
        axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[end]
        group = sorted(described(objects, head), key=lambda i: sign * objects[i].centre[axis])
        return [group[["first", "second", "third", "fourth"].index(ordinal)]]
    one = r"(?:to the )?(left|right|above|higher|below|lower)(?: of| than)? the"
    both = re.fullmatch(rf"(.*?) {one} (.*) and {one} (.*)", text)
    if both:
        head, *pairs = both.groups()
        found, anchors = set(described(objects, head)), set()
        for direction, words in (pairs[:2], pairs[2:]):
            (anchor,) = described(objects, words)
            anchors.add(anchor)
            axis, sign = DIRECTIONS[direction]
            place = objects[anchor].centre[axis]
            found &= {i for i, o in enumerate(objects) if sign * (o.centre[axis] - place) > 0}
        return sorted(found - anchors)
    relation = re.fullmatch(r"(.*?) (?:to the )?(left|right|above|higher|below|lower)(?: of| than)? the (.*)", text)
    if relation:
        head, direction, anchor_words = relation.groups()
        (anchor,) = described(objects, anchor_words)
        axis, sign = DIRECTIONS[direction]
        place = objects[anchor].centre[axis]
        return [i for i in described(objects, head) if i != anchor and sign * (objects[i].centre[axis] - place) > 0]
    group = described(objects, text)
    for word, (axis, sign) in (SUPERLATIVES | PLACES).items():
        if word in text:
            return [max(group, key=lambda i: sign * objects[i].centre[axis])]
    if "largest" in text or "smallest" in text:
        return [(max if "largest" in text else min)(group, key=lambda i: objects[i].radius)]
    return group


@pytest.mark.parametrize("split", SPLITS)
def test_expressions_name_exactly_their_targets(split):
    scenes, kinds = RefShapes(split, 120), set()
    for i in range(120):
        sample = scenes[i]
        assert 1 <= len(sample.expressions) <= 3
        for expression in sample.expressions:
            assert referents(sample.objects, expression.text) == list(expression.targets), expression.text
            assert len(expression.targets) == 1 or expression.kind in ("plural", "none")
            kinds.add(expression.kind)
    assert kinds == set(SPLITS[split])


def test_nothing_or_several_objects_share_one_mask():
    scenes = RefShapes("testC", 60)
    samples = [scenes[i] for i in range(60)]
    pairs = [(e, mask, s) for s in samples for e, mask in zip(s.expressions, s.masks, strict=True)]
    assert {e.kind for e, mask, _ in pairs if not mask.any()} == {"none"}
    expression, mask, sample = next(pair for pair in pairs if pair[0].kind == "plural")
    np.testing.assert_array_equal(mask, np.logical_or.reduce([sample.object_masks[i] for i in expression.targets]))


def test_clutter_hides_no_object():
    """The background may differ, the visible pixels of the objects stay."""
    scenes = RefShapes("testC", 20)
    for sample in (scenes[i] for i in range(20)):
        _, masks = draw(sample.objects, scenes.size, np.random.default_rng(0))
        np.testing.assert_array_equal(masks, sample.object_masks)


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
    ],
)
def test_splits_are_those_of_the_published_figures(split, known):
    """Who changes what a split holds has to measure the model card's figures anew."""
    scenes = [RefShapes(split, 20)[i] for i in range(20)]
    asked = [
        (e.text, e.targets, int(mask.sum())) for s in scenes for e, mask in zip(s.expressions, s.masks, strict=True)
    ]
    assert hashlib.sha256(repr(asked).encode()).hexdigest()[:16] == known


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


def test_captions_name_every_object():
    described = [{"colour": "red", "shape": "star"}, {"size": "small"}, {"texture": "dotted", "shape": "ring"}]
    assert caption(described) == "a red star, a small object and a dotted ring"
    assert caption(described[:1]) == "a red star"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "`split` is 'test'; allowed are train, trainA, trainC, val, testA, testB, testC"),
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
