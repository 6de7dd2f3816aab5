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
"""Expressions of RefShapes: texts of every kind that name objects of a scene, each unambiguous by construction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from .scenes import ATTRIBUTES, COLOURS, SHAPES, SIZES, TEXTURES, RefObject, matches

KINDS = ("attribute", "superlative", "relation", "negation", "ordinal", "relations", "plural", "none")

# Directions: axis of the centre (0 = x, 1 = y, downwards), sign, phrases of the relation and of the superlative
_DIRECTIONS = {
    "left": (0, -1, ("left of", "to the left of"), ("leftmost {}", "{} on the far left")),
    "right": (0, 1, ("right of", "to the right of"), ("rightmost {}", "{} on the far right")),
    "above": (1, -1, ("above", "higher than"), ("topmost {}", "{} at the top")),
    "below": (1, 1, ("below", "lower than"), ("bottommost {}", "{} at the bottom")),
}
# Where counting starts, with the axis and the sign of the direction in which it goes on
_ENDS = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_ORDINALS = ("first", "second", "third", "fourth")
# Centres closer than this (as a fraction of the image's side) are neither left nor right, above nor below each other
_MARGIN = 0.07
# A radius must differ by this factor for "largest" or "smallest"
_SIZE_RATIO = 1.2


@dataclass(frozen=True)
class Expression:
    """A referring expression, its kind, and the indices of the objects it names: one, several, or none."""

    text: str
    kind: str
    targets: tuple[int, ...]


def phrase(values: dict[str, str]) -> str:
    """The words of some attributes in their order: `"small striped red circle"`; without a shape, `"... object"`."""
    words = [values[name] for name in ("size", "texture", "colour") if name in values]
    return " ".join([*words, values.get("shape", "object")])


def _plural(noun_phrase: str) -> str:
    return noun_phrase + ("es" if noun_phrase.endswith("s") else "s")


def random_expression(rng: np.random.Generator, objects: tuple[RefObject, ...], kind: str) -> Expression | None:
    """An unambiguous expression of a kind in a random form, or `None` if the scene admits none that was tried."""
    for _ in range(20):
        proposal = _PROPOSALS[kind](rng, objects)
        if proposal:
            words, targets = proposal
            targets = targets if isinstance(targets, tuple) else (targets,)
            return Expression(f"{'all the' if kind == 'plural' else 'the'} {words}", kind, targets)
    return None


def random_attributes(rng: np.random.Generator, thing: RefObject, fewest: int = 1) -> dict[str, str]:
    """Some attributes of an object, at least `fewest`, as a description would name them."""
    subsets = [c for n in range(fewest, 5) for c in combinations(ATTRIBUTES, n)]
    # Short descriptions, and those with a shape, are what people say
    weights = np.array([(2.0 if "shape" in c else 1.0) / max(len(c), 1) for c in subsets])
    return {name: getattr(thing, name) for name in subsets[rng.choice(len(subsets), p=weights / weights.sum())]}


def _by_attribute(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    target = int(rng.integers(len(objects)))
    values = random_attributes(rng, objects[target])
    return (phrase(values), target) if sum(matches(o, values) for o in objects) == 1 else None


def _by_superlative(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    values = random_attributes(rng, objects[rng.integers(len(objects))], fewest=0)
    by_size = rng.random() < 0.33
    if by_size:
        values.pop("size", None)
    group = [i for i, o in enumerate(objects) if matches(o, values)]
    if len(group) < 2:
        return None
    key: Callable[[RefObject], float]
    if by_size:
        sign, words, key = (1, "largest {}", lambda o: np.log(o.radius) / np.log(_SIZE_RATIO))
        if rng.random() < 0.5:
            sign, words = -1, "smallest {}"
    else:
        axis, sign, _, phrases = _DIRECTIONS[str(rng.choice(list(_DIRECTIONS)))]
        words, key = str(rng.choice(phrases)), lambda o: o.centre[axis] / _MARGIN
    best, second = sorted(group, key=lambda i: -sign * key(objects[i]))[:2]
    clear = sign * (key(objects[best]) - key(objects[second])) >= 1
    return (words.format(phrase(values)), best) if clear else None


def _by_relation(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    target, anchor = (int(i) for i in rng.choice(len(objects), 2, replace=False))
    values, anchor_values = (random_attributes(rng, objects[i]) for i in (target, anchor))
    if sum(matches(o, anchor_values) for o in objects) != 1:
        return None
    axis, sign, phrases, _ = _DIRECTIONS[str(rng.choice(list(_DIRECTIONS)))]
    candidates = [i for i, o in enumerate(objects) if i != anchor and matches(o, values)]
    offsets = {i: sign * (objects[i].centre[axis] - objects[anchor].centre[axis]) for i in candidates}
    if offsets[target] < _MARGIN or any(offsets[i] > -_MARGIN for i in candidates if i != target):
        return None
    # Where the first half alone names the object, the relation would not have to be understood
    if len(candidates) == 1 and rng.random() < 0.7:
        return None
    return f"{phrase(values)} {rng.choice(phrases)} the {phrase(anchor_values)}", target


def _by_negation(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    target = int(rng.integers(len(objects)))
    values = random_attributes(rng, objects[target], fewest=0)
    name = str(rng.choice(ATTRIBUTES))
    values.pop(name, None)
    group = [i for i, o in enumerate(objects) if matches(o, values)]
    excluded = {getattr(objects[i], name) for i in group if i != target}
    # All others have the one value that is denied, and there is another: else the negation would say nothing
    if len(excluded) != 1 or getattr(objects[target], name) in excluded:
        return None
    (denied,) = excluded
    return f"{phrase(values)} that is not {'a ' if name == 'shape' else ''}{denied}", target


def _by_ordinal(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    values = random_attributes(rng, objects[rng.integers(len(objects))], fewest=0)
    end = str(rng.choice(list(_ENDS)))
    axis, sign = _ENDS[end]
    group = sorted(
        (i for i, o in enumerate(objects) if matches(o, values)), key=lambda i: sign * objects[i].centre[axis]
    )
    if len(group) < 3:
        return None
    positions = [sign * objects[i].centre[axis] for i in group]
    number = int(rng.integers(min(len(group), len(_ORDINALS))))
    # Each must be clear of its neighbours, as far as one has to count
    if any(after - before < _MARGIN for before, after in pairwise(positions[: number + 2])):
        return None
    return f"{_ORDINALS[number]} {phrase(values)} from the {end}", group[number]


def _by_relations(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, int] | None:
    target = int(rng.integers(len(objects)))
    values = random_attributes(rng, objects[target], fewest=0)
    group = [i for i, o in enumerate(objects) if matches(o, values)]
    # What is true of the target: an anchor, a direction, who else it surely is true of, and who perhaps
    facts = []
    for anchor in set(range(len(objects))) - {target}:
        for name, (axis, sign, *_) in _DIRECTIONS.items():
            offsets = {i: sign * (objects[i].centre[axis] - objects[anchor].centre[axis]) for i in group}
            if offsets[target] >= _MARGIN:
                surely = {i for i, offset in offsets.items() if offset >= _MARGIN and i != anchor}
                facts.append((anchor, name, surely, {i for i, offset in offsets.items() if offset > -_MARGIN}))
    # Both together name one object, and neither alone does
    pairs = [
        (one, other)
        for one, other in combinations(facts, 2)
        if one[0] != other[0] and len(one[2]) > 1 < len(other[2])
        # The anchors are named apart, so that they are none of those meant
        if (one[3] & other[3]) - {one[0], other[0]} == {target}
    ]
    if not pairs:
        return None
    words = []
    for anchor, name, *_ in pairs[rng.integers(len(pairs))]:
        anchor_values = random_attributes(rng, objects[anchor], fewest=2)
        if sum(matches(o, anchor_values) for o in objects) != 1:
            return None
        words.append(f"{rng.choice(_DIRECTIONS[name][2])} the {phrase(anchor_values)}")
    return f"{phrase(values)} {' and '.join(words)}", target


def _as_plural(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, tuple[int, ...]] | None:
    values = random_attributes(rng, objects[rng.integers(len(objects))])
    group = tuple(i for i, o in enumerate(objects) if matches(o, values))
    return (_plural(phrase(values)), group) if 2 <= len(group) < len(objects) else None


def _of_none(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[str, tuple[int, ...]] | None:
    # An object's description with one word changed, so that it takes reading and looking to tell that nothing fits
    values = random_attributes(rng, objects[rng.integers(len(objects))])
    name = str(rng.choice(list(values)))
    known = {"size": tuple(SIZES), "texture": TEXTURES, "colour": tuple(COLOURS), "shape": SHAPES}[name]
    values[name] = str(rng.choice(known))
    return None if any(matches(o, values) for o in objects) else (phrase(values), ())


_Proposal = tuple[str, int] | tuple[str, tuple[int, ...]] | None
_PROPOSALS: dict[str, Callable[[np.random.Generator, tuple[RefObject, ...]], _Proposal]] = {
    "attribute": _by_attribute,
    "superlative": _by_superlative,
    "relation": _by_relation,
    "negation": _by_negation,
    "ordinal": _by_ordinal,
    "relations": _by_relations,
    "plural": _as_plural,
    "none": _of_none,
}


def caption(descriptions: Sequence[dict[str, str]]) -> str:
    """A caption that names some objects by their attributes: `"a striped red star and a small object"`."""
    parts = [f"a {phrase(values)}" for values in descriptions]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


__all__ = ["KINDS", "Expression", "caption", "phrase", "random_attributes", "random_expression"]
