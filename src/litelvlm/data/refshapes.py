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
"""
RefShapes: a synthetic referring-segmentation set, generated from a seed on the fly.

A scene shows objects that differ in shape, colour, texture, size and place on a textured background; an expression
names one of them, by attribute ("the striped star"), superlative ("the leftmost circle"), ordinal ("the second star
from the left"), negation ("the star that is not red") or relation to one object or two ("the red square above the
large ring"); or several ("all the red stars"), or none. Each is unambiguous by construction. Masks hold the visible
pixels of each object. Geometry is in fractions of the picture, so one scene can be drawn at any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 130, 30),
    "cyan": (40, 200, 210),
    "pink": (245, 130, 190),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "hexagon", "ring")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"small": 0.08, "medium": 0.115, "large": 0.165}  # radius, as a fraction of the picture's side
ATTRIBUTES = ("size", "texture", "colour", "shape")
KINDS = ("attribute", "superlative", "relation", "negation", "ordinal", "relations", "plural", "none")
# How often each kind is asked for, per split
_EVERY_KIND = dict(zip(KINDS, (0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1), strict=True))
SPLITS: dict[str, dict[str, float]] = {
    "train": _EVERY_KIND,
    "trainA": {"attribute": 1.0},
    "trainC": _EVERY_KIND,
    "val": _EVERY_KIND,
    "testA": {"attribute": 1.0},
    "testB": {"relation": 1.0},
    "testC": _EVERY_KIND,
}
# Splits whose objects hide more of each other, in front of clutter
CLUTTERED = ("trainC", "testC")

# Part of each scene's seed: a number, once given, stays
_SPLIT_NUMBERS = {"train": 0, "val": 1, "testA": 2, "testB": 3, "trainA": 4, "trainC": 5, "testC": 6}

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
# Centres closer than this (as a fraction of the side) are neither left nor right, above nor below each other
_MARGIN = 0.07
# A radius must differ by this factor for "largest" or "smallest"
_SIZE_RATIO = 1.2


@dataclass(frozen=True)
class RefObject:
    """One object: its attributes, centre and radius as fractions of the picture."""

    shape: str
    colour: str
    texture: str
    size: str
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Expression:
    """A referring expression, its kind, and the indices of the objects it names: one, several, or none."""

    text: str
    kind: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """
    Args:
        image (`np.ndarray` of shape `(size, size, 3)`, uint8): the drawn scene.
        object_masks (`np.ndarray` of shape `(num_objects, size, size)`, bool): visible pixels of each object.
        objects (`tuple[RefObject, ...]`): in drawing order.
        expressions (`tuple[Expression, ...]`): at least 1, each unambiguous.
    """

    image: np.ndarray
    object_masks: np.ndarray
    objects: tuple[RefObject, ...]
    expressions: tuple[Expression, ...]

    @property
    def masks(self) -> np.ndarray:
        """The mask of each expression, shape `(num_expressions, size, size)`, bool; empty where none is named."""
        return np.stack([self.object_masks[list(expression.targets)].any(axis=0) for expression in self.expressions])


class RefShapes:
    """
    A split of RefShapes as a map-style data set: item i is always the same [`Sample`].

    Args:
        split (`str`): `"train"` and `"val"` (every kind of expression), `"trainA"` and `"testA"` (attributes),
            `"testB"` (relations), `"trainC"` and `"testC"` (every kind, in cluttered scenes).
        length (`int`): number of images.
        size (`int`): side of the picture in pixels.
        seed (`int`): another seed, another set; splits never share a scene.
        num_objects (`tuple[int, int]`): fewest and most objects of a scene.
        max_expressions (`int`): most expressions of a scene; more than the protocol's 3 only serve to train.

    Raises:
        ValueError: unknown split, or numbers that give no scene.
    """

    def __init__(
        self,
        split: str,
        length: int = 500,
        size: int = 128,
        seed: int = 0,
        num_objects: tuple[int, int] = (3, 9),
        max_expressions: int = 3,
    ):
        if split not in SPLITS:
            raise ValueError(f"`split` is {split!r}; allowed are {', '.join(SPLITS)}.")
        if length < 1 or size < 32:
            raise ValueError(f"`length` is {length} and `size` {size}; allowed are at least 1 and at least 32.")
        if not 2 <= num_objects[0] <= num_objects[1] <= 9:
            raise ValueError(f"`num_objects` is {num_objects}; allowed are 2 <= fewest <= most <= 9.")
        if max_expressions < 1:
            raise ValueError(f"`max_expressions` is {max_expressions}; allowed is at least 1.")
        self.split, self.length, self.size, self.seed, self.num_objects = split, length, size, seed, num_objects
        self.max_expressions = max_expressions

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of a split of {self.length}")
        rng = np.random.default_rng([_SPLIT_NUMBERS[self.split], self.seed, index])
        cluttered = self.split in CLUTTERED
        return random_sample(rng, self.size, self.num_objects, SPLITS[self.split], cluttered, self.max_expressions)


def random_sample(
    rng: np.random.Generator,
    size: int,
    num_objects: tuple[int, int] = (3, 9),
    kind_shares: dict[str, float] = _EVERY_KIND,
    cluttered: bool = False,
    max_expressions: int = 3,
) -> Sample:
    """Draws scenes until one admits an expression of a wanted kind, and asks for some of its objects, none twice."""
    shares = [kind_shares.get(kind, 0.0) for kind in KINDS]
    while True:
        objects = random_scene(rng, num_objects, closeness=0.75 if cluttered else 0.92)
        image, masks = draw(objects, size, rng, cluttered)
        # Where later objects hide too much of one, an attribute may not be seen
        visible = masks.sum(axis=(1, 2)) / (np.pi * (size * np.array([o.radius for o in objects])) ** 2)
        needed = np.array([0.5 * _AREAS[o.shape] if cluttered else 0.2 for o in objects])
        if masks.any(axis=(1, 2)).all() and (visible > needed).all():
            expressions: list[Expression] = []
            for _ in range(max_expressions + 1):
                expression = random_expression(rng, objects, str(rng.choice(KINDS, p=shares)))
                if (
                    len(expressions) < max_expressions
                    and expression
                    and expression.targets not in {e.targets for e in expressions}
                ):
                    expressions.append(expression)
            if expressions:
                return Sample(image, masks, objects, tuple(expressions))


def random_scene(
    rng: np.random.Generator, num_objects: tuple[int, int], closeness: float = 0.92
) -> tuple[RefObject, ...]:
    """
    Objects whose centres are at least `closeness` times the sum of their radii apart. Few shapes and colours a scene,
    so that one attribute is seldom enough.
    """
    colours = rng.choice(list(COLOURS), rng.integers(2, 6), replace=False)
    shapes = rng.choice(SHAPES, rng.integers(2, 5), replace=False)
    textured = rng.random() < 0.7
    objects: list[RefObject] = []
    wanted = rng.integers(num_objects[0], num_objects[1] + 1)
    for _ in range(40 * wanted):
        size = str(rng.choice(list(SIZES)))
        radius = SIZES[size] * rng.uniform(0.93, 1.07)
        x, y = rng.uniform(radius, 1 - radius, 2)
        if all(np.hypot(x - o.centre[0], y - o.centre[1]) > closeness * (radius + o.radius) for o in objects):
            texture = str(rng.choice(TEXTURES)) if textured else "plain"
            shape, colour = str(rng.choice(shapes)), str(rng.choice(colours))
            objects.append(RefObject(shape, colour, texture, size, (float(x), float(y)), float(radius)))
        if len(objects) == wanted:
            break
    return tuple(objects)


# --- drawing ---------------------------------------------------------------------------------------------------------


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are inside a shape of radius 1 around the origin (y points down); bool, same shape."""
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.85
    if shape == "diamond":
        return abs(x) + abs(y) < 1.1
    if shape == "triangle":
        return (abs(x) < 0.58 * (y + 1)) & (y < 0.75)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1)
    distance = np.hypot(x, y)
    if shape == "ring":
        return (distance < 1) & (distance > 0.55)
    if shape == "hexagon":
        return distance * np.cos((np.arctan2(y, x) % (np.pi / 3)) - np.pi / 6) < np.cos(np.pi / 6)
    if shape == "star":
        # In each tenth of the circle a straight edge from a tip at radius 1 to a notch at radius 0.45
        tenth = np.pi / 5
        angle = abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
        notch_x, notch_y = 0.45 * np.cos(tenth), 0.45 * np.sin(tenth)
        return distance * (notch_y * np.cos(angle) + (1 - notch_x) * np.sin(angle)) < notch_y
    return distance < 1  # circle


# Each shape's area as a share of the circle around it
_GRID = np.meshgrid(np.linspace(-1.2, 1.2, 480), np.linspace(-1.2, 1.2, 480))
_AREAS = {shape: float(inside(shape, *_GRID).sum() / (np.hypot(*_GRID) < 1).sum()) for shape in SHAPES}


def draw(
    objects: tuple[RefObject, ...], size: int, rng: np.random.Generator, cluttered: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image `(size, size, 3)` uint8 and visible masks `(num_objects, size, size)` bool, later objects on top."""
    image = _background(size, rng)
    if cluttered:
        _add_clutter(image, rng)
    masks = np.zeros((len(objects), size, size), dtype=bool)
    # Two samples per pixel and axis, so that edges are as smooth as those of a picture that was made smaller
    edges = np.arange(size) / size
    for index, thing in enumerate(objects):
        x0, y0 = thing.centre
        columns, rows = (np.flatnonzero(abs(edges - c) < 1.1 * thing.radius + 1 / size) for c in (x0, y0))
        samples = np.array([0.25, 0.75]) / size
        x, y = np.meshgrid(*((edges[k][:, None] + samples).ravel() - c for k, c in ((columns, x0), (rows, y0))))
        covered = inside(thing.shape, x / thing.radius, y / thing.radius)
        colour = np.array(COLOURS[thing.colour], dtype=np.float32)
        # Dark colours take light patterns and light ones dark, so that the colour itself stays readable
        other = colour + (np.float32(110) if colour.mean() < 60 else -0.5 * colour)
        surface = np.where(_pattern(thing.texture, x, y)[..., None], other, colour)
        shading = 1 + 0.12 * (x + y) / thing.radius * rng.uniform(-1, 1)
        paint = _per_pixel(surface * (shading * covered)[..., None])
        share = _per_pixel(covered[..., None].astype(np.float32))
        window = np.ix_(rows, columns)
        image[window] = image[window] * (1 - share) + paint
        # A pixel belongs to the mask if its centre does
        x, y = np.meshgrid(*(edges[k] + 0.5 / size - c for k, c in ((columns, x0), (rows, y0))))
        masks[index][window] = inside(thing.shape, x / thing.radius, y / thing.radius)
        masks[:index, rows[:, None], columns] &= ~masks[index][window]
    image += rng.normal(0, rng.uniform(0, 6), image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), masks


def _per_pixel(samples: np.ndarray) -> np.ndarray:
    """Mean of each pixel's 2 x 2 samples: `(2 H, 2 W, C)` to `(H, W, C)`."""
    height, width, channels = samples.shape
    return samples.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def _pattern(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the second tone of a texture is; x and y as fractions of the picture from the object's centre."""
    period = 0.055
    if texture == "striped":
        return ((x + y) / period) % 1 < 0.42
    if texture == "checkered":
        return (np.floor(x / period * 1.6) + np.floor(y / period * 1.6)) % 2 == 0
    if texture == "dotted":
        return np.hypot((x / period) % 1 - 0.5, (y / period) % 1 - 0.5) < 0.33
    return np.zeros(x.shape, dtype=bool)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A muted surface, float32 `(size, size, 3)`: plain, a gradient, soft noise or faint stripes."""
    base = rng.uniform(80, 190) + rng.uniform(-14, 14, 3)
    kind = rng.integers(4)
    ramp = np.linspace(-1, 1, size)
    if kind == 0:
        change = np.zeros((size, size))
    elif kind == 1:
        change = rng.uniform(-25, 25) * ramp[:, None] + rng.uniform(-25, 25) * ramp[None]
    elif kind == 2:
        coarse = rng.uniform(-22, 22, (9, 9))
        place = np.linspace(0, 7.999, size)
        low, part = place.astype(int), (place % 1)[:, None]
        rows = coarse[low] * (1 - part) + coarse[low + 1] * part
        change = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
    else:
        wave = rng.uniform(-1, 1, 2)
        change = rng.uniform(4, 16) * np.sign(np.sin(40 * (wave[0] * ramp[:, None] + wave[1] * ramp[None])))
    return (base + change[..., None]).astype(np.float32)


def _add_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Faint bars and specks, too thin or too small for any object, painted into a background in place."""
    size = len(image)
    places = (np.arange(size) + 0.5) / size
    for _ in range(rng.integers(3, 9)):
        change = rng.uniform(-45, 45, 3).astype(np.float32)
        (x0, y0), angle, is_bar = rng.uniform(0, 1, 2), rng.uniform(0, np.pi), rng.random() < 0.6
        x, y = places[None] - x0, places[:, None] - y0
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        half = (rng.uniform(0.1, 0.4), 0.008) if is_bar else (0.022, 0.022)
        image[(abs(along) < half[0]) & (abs(across) < half[1])] += change


# --- language --------------------------------------------------------------------------------------------------------


def phrase(values: dict[str, str]) -> str:
    """The words of some attributes in their order: `"small striped red circle"`; without a shape, `"... object"`."""
    words = [values[name] for name in ("size", "texture", "colour") if name in values]
    return " ".join([*words, values.get("shape", "object")])


def _plural(noun_phrase: str) -> str:
    return noun_phrase + ("es" if noun_phrase.endswith("s") else "s")


def matches(thing: RefObject, values: dict[str, str]) -> bool:
    """Whether an object has these attributes."""
    return all(getattr(thing, name) == value for name, value in values.items())


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
    places = [sign * objects[i].centre[axis] for i in group]
    number = int(rng.integers(min(len(group), len(_ORDINALS))))
    # Each must be clear of its neighbours, as far as one has to count
    if any(after - before < _MARGIN for before, after in pairwise(places[: number + 2])):
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


__all__ = [
    "ATTRIBUTES",
    "CLUTTERED",
    "COLOURS",
    "KINDS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TEXTURES",
    "Expression",
    "RefObject",
    "RefShapes",
    "Sample",
    "caption",
    "draw",
    "matches",
    "phrase",
    "random_attributes",
    "random_expression",
    "random_sample",
    "random_scene",
]
