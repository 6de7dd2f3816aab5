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
"""Masks of every form: what is sound is decoded, what is damaged is named, and nothing is drawn of it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from litelvlm.data.masks import decode_segmentation, draw_labelme_shape, encode_mask, image_as_mask

MASK = np.zeros((3, 4), np.uint8)
MASK[1:, 1:3] = 1
RUNS = [4, 2, 1, 2, 3]  # column by column
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]


def test_every_form_of_a_coco_mask_is_decoded():
    assert np.array_equal(decode_segmentation({"size": [3, 4], "counts": RUNS}, 3, 4), MASK)
    assert np.array_equal(decode_segmentation(encode_mask(MASK), 3, 4), MASK)
    assert np.array_equal(decode_segmentation([SQUARE], 3, 4), MASK)
    for wrong in ({"size": [4, 3], "counts": RUNS}, {"size": [3, 4], "counts": [5]}, [], "mask", [["a"] * 6]):
        with pytest.raises(ValueError, match=r"run lengths|polygon"):
            decode_segmentation(wrong, 3, 4)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (480, 640)])
def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(shape):
    random = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = (random.random(shape) < share).astype(np.uint8)
        assert np.array_equal(decode_segmentation(encode_mask(mask), *shape), mask)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "4", lambda c: c[1:], lambda c: c[:-1] + "P"])
def test_compressed_run_lengths_of_another_sum_are_refused(change):
    runs = encode_mask(MASK)
    with pytest.raises(ValueError, match="run lengths"):
        decode_segmentation(runs | {"counts": change(runs["counts"])}, 3, 4)


@pytest.mark.parametrize(
    "counts", ["", "é", "\ud800", "P" * 1000, b"\x00", None, [4.0, 8], [True, 11], [-3, 15], [2**70], ["12"]]
)
def test_run_lengths_that_are_no_numbers_are_refused(counts):
    with pytest.raises(ValueError, match="run lengths"):
        decode_segmentation({"size": [3, 4], "counts": counts}, 3, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e12, 10**400, 13, -5])
def test_polygons_far_away_or_without_end_are_refused(value):
    with pytest.raises(ValueError, match=r"coordinate .* allowed are numbers from -4 to 8"):
        decode_segmentation([[*SQUARE[:-1], value]], 3, 4)


def test_polygons_a_little_over_the_edge_are_drawn_within():
    assert decode_segmentation([[-1, -2, 6, -2, 6, 5, -1, 5]], 3, 4).all()


@pytest.mark.parametrize("flat", [[], [1, 2], [0, 0, 3, 2]])
def test_polygons_without_three_points_leave_the_sound_ones_beside_them(flat):
    assert np.array_equal(decode_segmentation([flat, SQUARE], 3, 4), MASK)
    with pytest.raises(ValueError, match="no polygon of three points"):
        decode_segmentation([flat], 3, 4)
    with pytest.raises(ValueError, match="an x that has no y"):
        decode_segmentation([SQUARE, SQUARE[:-1]], 3, 4)


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_rows_of_pixels_are_a_mask_and_no_polygons(dtype):
    assert np.array_equal(decode_segmentation(MASK.astype(dtype).tolist(), 3, 4), MASK)
    assert np.array_equal(decode_segmentation((MASK * 255).tolist(), 3, 4), MASK)
    wide = np.zeros((8, 10), np.uint8)  # of another size they would look like polygons
    wide[2:5, 3:7] = 1
    with pytest.raises(ValueError, match="8 rows of pixels for an image 16 high and 20 wide"):
        decode_segmentation(wide.astype(dtype).tolist(), 16, 20)


@pytest.mark.parametrize("other", [0.3, float("nan"), 7])
def test_rows_of_several_values_are_refused(other):
    rows = MASK.tolist()
    rows[0][0] = other
    with pytest.raises(ValueError, match="rows of pixels with several values"):
        decode_segmentation(rows, 3, 4)


@pytest.mark.parametrize("size", [(0, 4), (-3, 4), (3.0, 4), (None, 4), (10**6, 10**6), ("3", 4)])
def test_sizes_that_no_image_has_are_refused(size):
    with pytest.raises(ValueError, match="allowed are up to"):
        decode_segmentation({"size": list(size), "counts": [12]}, *size)


def test_an_image_is_inside_where_its_value_is_not_zero_in_any_depth():
    # A 16-bit value of 1 is next to black, yet inside
    deep = [Image.fromarray(MASK.astype(dtype)) for dtype in (np.uint16, np.int32, np.float32)]
    colour = Image.fromarray(np.stack([MASK * 0, MASK * 0, MASK], axis=2))
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    for image in (*deep, Image.fromarray(MASK), Image.fromarray(MASK > 0), colour, colour.convert("RGBA"), palette):
        assert np.array_equal(image_as_mask(image), MASK), image.mode
    with pytest.raises(ValueError, match="transparent in parts"):
        image_as_mask(Image.fromarray(np.stack([MASK * 255] * 4, axis=2), "RGBA"))


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ({"shape_type": "rectangle", "points": [[4, 3], [2, 1]]}, ["......", "..###.", "..###.", "..###.", "......"]),
        (
            {"shape_type": "rectangle", "points": [[2, 1], [4, 1], [4, 3], [2, 3]]},
            ["......", "..###.", "..###.", "..###.", "......"],
        ),
        ({"shape_type": "circle", "points": [[2, 2], [2, 4]]}, [".###..", "#####.", "#####.", "#####.", ".###.."]),
        (
            {"shape_type": "mask", "points": [[1, 2], [3, 3]], "mask": png(np.array([[1, 0], [1, 1]], np.uint8))},
            ["......", "......", ".#....", ".##...", "......"],
        ),
        ({"points": [[0, 0], [2, 0], [2, 2], [0, 2]]}, ["###...", "###...", "###...", "......", "......"]),
    ],
)
def test_shapes_of_labelme_are_drawn_as_what_they_are(shape, rows):
    drawn = draw_labelme_shape(shape, 5, 6)
    assert ["".join(".#"[int(inside)] for inside in row) for row in drawn] == rows


@pytest.mark.parametrize(
    "change",
    [
        {"shape_type": "linestrip"},
        {"shape_type": "point", "points": [[1, 1]]},
        {"points": [[1, 1], [2, 2]]},
        {"shape_type": "circle"},
        {"points": [[1, 1], [2, float("nan")], [2, 2]]},
        {"points": [[1, 1], [2, 1e12], [2, 2]]},
        {"points": [[1, 1], [2, "2"], [2, 2]]},
        {"points": None},
        {"shape_type": "mask"},
        {"shape_type": "mask", "mask": "no PNG"},
        {"shape_type": "mask", "mask": png(np.ones((9, 9), np.uint8))},
    ],
)
def test_shapes_of_labelme_without_an_area_or_damaged_are_refused(change):
    shape = {"shape_type": "polygon", "points": [[1, 1], [3, 1], [3, 3]]}
    with pytest.raises(ValueError, match=r"shape|coordinate|mask"):
        draw_labelme_shape(shape | change, 5, 6)
