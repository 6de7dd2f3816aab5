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
"""Hypothesis strategies of what users hand in, sound and hostile, for tests and for scripts/fuzz.py."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from litelvlm.data.masks import encode_mask

NUMBERS = st.one_of(
    st.integers(-20, 20),
    st.floats(-20, 20),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e12, -1e300, 10**400, 2**63, True, 0.5]),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = SIZES.flatmap(lambda size: arrays.arrays(np.uint8, size, elements=st.integers(0, 1)))
BUDGETS = st.one_of(st.none(), st.integers(-2, 20), NUMBERS, st.text(max_size=3))
TEXTS = st.one_of(st.text(max_size=30), st.text(st.characters(categories=["Cs", "Cc", "So", "Lo"]), max_size=6), JSON)


def _damaged(text: str) -> st.SearchStrategy[str]:
    """A text with a letter replaced, cut off or put in."""
    position, letter = st.integers(0, len(text)), st.characters(max_codepoint=127)
    return st.builds(lambda i, j, c: text[:i] + c + text[max(i, j) :], position, position, letter)


@st.composite
def segmentations(draw: st.DrawFn) -> tuple[object, int, int, np.ndarray | None]:
    """A segmentation, the height and width of its image, and the mask that is right, where that is known."""
    mask = draw(MASKS)
    height, width = mask.shape
    runs = encode_mask(mask)
    kind = draw(st.sampled_from(["runs", "rows", "damaged runs", "lists", "polygons", "any"]))
    if kind == "runs":
        return runs, height, width, mask
    if kind == "rows":
        return mask.astype(draw(st.sampled_from([bool, np.uint8, float]))).tolist(), height, width, mask
    if kind == "damaged runs":
        return runs | {"counts": draw(_damaged(runs["counts"]))}, height, width, None
    if kind == "lists":
        size = draw(st.just([height, width]) | JSON)
        return {"size": size, "counts": draw(st.lists(NUMBERS, max_size=6))}, height, width, None
    if kind == "polygons":
        return draw(st.lists(st.lists(NUMBERS, max_size=10), max_size=3)), height, width, None
    return draw(JSON), draw(st.just(height) | NUMBERS), draw(st.just(width) | NUMBERS), None


@st.composite
def labelme_shapes(draw: st.DrawFn) -> dict[str, object]:
    points = st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=5) | JSON
    kinds = st.sampled_from(["polygon", "rectangle", "circle", "mask", "line", None]) | JSON
    shape = {"shape_type": draw(kinds), "points": draw(points), "label": draw(st.just("target") | JSON)}
    return shape | ({"mask": draw(JSON)} if draw(st.booleans()) else {})


@st.composite
def coco_files(draw: st.DrawFn) -> object:
    """What val.json may hold beside an image a.png of 8 x 10 pixels."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    identities = st.integers(0, 3) | JSON
    image = st.fixed_dictionaries(
        {},
        optional={
            "id": identities,
            "file_name": st.just("a.png") | JSON,
            "height": st.just(8) | NUMBERS,
            "width": st.just(10) | NUMBERS,
        },
    )
    annotation = st.fixed_dictionaries(
        {},
        optional={
            "id": identities,
            "image_id": identities,
            "text": TEXTS,
            "segmentation": segmentations().map(lambda found: found[0]),
        },
    )
    return {
        "images": draw(st.lists(image | JSON, max_size=3) | JSON),
        "annotations": draw(st.lists(annotation | JSON, max_size=4) | JSON),
    }


@st.composite
def images(draw: st.DrawFn) -> object:
    """Arrays of any shape, dtype and range, and Pillow's images of any mode."""
    if draw(st.booleans()):
        shape = draw(arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))
        return draw(arrays.arrays(draw(arrays.scalar_dtypes()), shape))
    mode = draw(
        st.sampled_from(["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I", "F", "I;16"])
    )
    return Image.new(mode, draw(st.tuples(st.integers(1, 9), st.integers(1, 9))))
