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
"""Expressions of RefShapes name exactly what they are said to name, read from their words alone."""

import re

import pytest

from litelvlm.data.refshapes import COLOURS, SHAPES, SIZES, SPLITS, TEXTURES, RefShapes, caption

WORDS = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "higher": (1, -1), "below": (1, 1), "lower": (1, 1)}
SUPERLATIVES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
FAR_ENDS = {"on the far left": (0, -1), "on the far right": (0, 1), "at the top": (1, -1), "at the bottom": (1, 1)}


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
            position = objects[anchor].centre[axis]
            found &= {i for i, o in enumerate(objects) if sign * (o.centre[axis] - position) > 0}
        return sorted(found - anchors)
    relation = re.fullmatch(r"(.*?) (?:to the )?(left|right|above|higher|below|lower)(?: of| than)? the (.*)", text)
    if relation:
        head, direction, anchor_words = relation.groups()
        (anchor,) = described(objects, anchor_words)
        axis, sign = DIRECTIONS[direction]
        position = objects[anchor].centre[axis]
        return [i for i in described(objects, head) if i != anchor and sign * (objects[i].centre[axis] - position) > 0]
    group = described(objects, text)
    for word, (axis, sign) in (SUPERLATIVES | FAR_ENDS).items():
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


def test_captions_name_every_object():
    described = [{"colour": "red", "shape": "star"}, {"size": "small"}, {"texture": "dotted", "shape": "ring"}]
    assert caption(described) == "a red star, a small object and a dotted ring"
    assert caption(described[:1]) == "a red star"
