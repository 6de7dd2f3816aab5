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
Masks as annotations store them: COCO's run lengths and polygons, rows of pixels, images, and LabelMe's shapes.

One decoder for all of them, which looks at sums, sizes and numbers before anything is drawn: what is damaged is a
ValueError, and never memory that nobody wrote.
"""

import base64
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..extras import required
from ..modeling.images_litelvlm import open_image


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """
    A mask as COCO stores it, run lengths `{"size", "counts"}`, compressed or not, or a list of polygons
    `[x0, y0, x1, y1, ...]`; or its rows, booleans or numbers of which 0 is outside.

    Polygons of fewer than three points, which enclose nothing, are passed over where others stand beside them.

    Returns:
        `np.ndarray` of shape `(height, width)`, uint8: 1 inside, 0 outside.

    Raises:
        ValueError: it is none of these, of another size, or damaged.
    """
    # No image of more pixels can be read either
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
    if not all(type(edge) is int and edge > 0 for edge in (height, width)) or height * width > limit:
        raise ValueError(f"an image {height!r} high and {width!r} wide; allowed are up to {limit} pixels")
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        return _from_runs(segmentation["size"], segmentation["counts"], height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("a segmentation that is neither polygons nor run lengths nor rows of pixels")
    if not all(
        isinstance(row, list) and all(isinstance(value, (int, float)) for value in row) for row in segmentation
    ):
        raise ValueError("a segmentation of which not every polygon or row is a list of numbers")
    if _are_rows(segmentation, height, width):
        return _from_rows(segmentation, height, width)
    return _from_polygons(segmentation, height, width)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask `(H, W)` of 0 and 1 as compressed run lengths that JSON can hold."""
    runs = required("pycocotools.mask", "formats").encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in runs["size"]], "counts": runs["counts"].decode("ascii")}


def image_as_mask(image: Image.Image) -> np.ndarray:
    """
    An image as a mask, shape `(H, W)`, uint8: 1 where a pixel is not 0, in whatever mode and depth it is stored.

    Raises:
        ValueError: it is transparent in parts, which does not say what is inside.
    """
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "a" in image.getbands():
        if image.getchannel(image.getbands()[-1]).getextrema()[0] < 255:
            raise ValueError("a mask that is transparent in parts; allowed are opaque ones, 0 outside")
        image = image.convert("L" if len(image.getbands()) == 2 else "RGB")
    pixels = np.asarray(image) != 0
    return (pixels if pixels.ndim == 2 else pixels.any(axis=2)).astype(np.uint8)


def draw_labelme_shape(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """
    A shape of LabelMe, drawn as LabelMe draws it: `"polygon"` (also where no type is given), `"rectangle"` of two
    opposite corners or all four, `"circle"` of its centre and a point on it, or `"mask"`.

    Returns:
        `np.ndarray` of shape `(height, width)`, bool.

    Raises:
        ValueError: the shape has no area, or is damaged.
    """
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError("a shape whose points are no pairs of numbers")
    _check_coordinates([value for point in points for value in point], height, width)
    if kind == "mask":
        return _paste(shape.get("mask"), points, height, width)
    layer = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(layer)
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = float(np.hypot(edge[0] - x, edge[1] - y))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
    elif kind == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = (sorted(round(value) for value in axis) for axis in zip(*points, strict=True))
        draw.rectangle((left, top, right, bottom), fill=1, outline=1)
    elif len(points) >= 3 if kind == "polygon" else kind == "rectangle" and len(points) == 4:
        draw.polygon([(round(x), round(y)) for x, y in points], fill=1, outline=1)
    else:
        raise ValueError(
            f"a shape of type {kind!r} with {len(points)} points; allowed are polygons of three and more, rectangles "
            "of two or four, circles of two, and masks"
        )
    return np.asarray(layer) > 0


# --- the forms -------------------------------------------------------------------------------------------------------


def _from_runs(size: Any, counts: Any, height: int, width: int) -> np.ndarray:
    if size != [height, width]:
        raise ValueError(f"run lengths of size {size} for an image of {[height, width]}")
    runs = _read_runs(counts) if isinstance(counts, (str, bytes)) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("run lengths that are not whole numbers from 0 on")
    if sum(runs) != height * width:
        raise ValueError(f"run lengths of {sum(runs)} pixels for an image of {height * width}")
    # Column by column, and outside first
    return np.repeat(np.arange(len(runs), dtype=np.int64) % 2, runs).astype(np.uint8).reshape(width, height).T


def _read_runs(text: str | bytes) -> list[int]:
    """
    COCO's compressed run lengths as numbers: letters of 5 bits each, and from the fourth number on the difference
    from the last but one. Read here, as pycocotools reads beyond the end of a damaged text and checks no sum.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in map(ord, text) if isinstance(text, str) else text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("run lengths that are no compressed text of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # the number goes on
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut off")
    return runs


def _are_rows(rows: list[list[Any]], height: int, width: int) -> bool:
    """Whether lists of numbers are the rows of a mask and no polygons, which look the same."""
    lengths = {len(row) for row in rows}
    if len(rows) == height and lengths == {width}:
        return True
    if any(type(value) is bool for row in rows for value in row):
        return True
    # Several polygons within one pixel, or on the corners of one square, are rows of another size
    values = {value for row in rows for value in row}
    return len(rows) > 1 and len(lengths) == 1 and (values <= {0, 1} or values <= {0, 255})


def _from_rows(rows: list[list[Any]], height: int, width: int) -> np.ndarray:
    if len(rows) != height or {len(row) for row in rows} != {width}:
        raise ValueError(f"{len(rows)} rows of pixels for an image {height} high and {width} wide")
    values = {value for row in rows for value in row}
    if len(values - {0}) > 1 or not np.isfinite([float(value) for value in values]).all():
        raise ValueError("rows of pixels with several values; allowed are booleans, or 0 and one other number")
    return np.array([[value != 0 for value in row] for row in rows], dtype=np.uint8)


def _from_polygons(polygons: list[list[Any]], height: int, width: int) -> np.ndarray:
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError("a polygon with an x that has no y")
        _check_coordinates(polygon, height, width)
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    if not areas:
        raise ValueError("no polygon of three points or more")
    coder: Any = required("pycocotools.mask", "formats")
    return coder.decode(coder.merge(coder.frPyObjects(areas, height, width)))


def _check_coordinates(values: list[Any], height: int, width: int) -> None:
    """Annotators draw over the edge, but not by more than an image; far away ones would fill the memory."""
    edge = max(height, width)
    # `not` lets NaN fail too
    if wrong := [v for v in values if type(v) not in (int, float) or not -edge <= v <= 2 * edge]:
        raise ValueError(
            f"a coordinate {str(wrong[0])[:40]} in an image {height} high and {width} wide; allowed are numbers from "
            f"{-edge} to {2 * edge}"
        )


def _paste(encoded: Any, points: list[Any], height: int, width: int) -> np.ndarray:
    """LabelMe's mask of a part of the image: a PNG in base64, and the corners of its place."""
    if not isinstance(encoded, str) or not points:
        raise ValueError("a shape of type 'mask' without `mask` or points")
    try:
        part = image_as_mask(open_image(base64.b64decode(encoded, validate=True)))
    except Exception as error:  # each of Pillow's readers raises its own
        raise ValueError(f"a shape whose `mask` is no image in base64 ({str(error)[:80]})") from error
    left, top = (round(value) for value in points[0])
    bottom, right = top + part.shape[0], left + part.shape[1]
    if left < 0 or top < 0 or bottom > height or right > width:
        raise ValueError(f"a mask from {[left, top]} to {[right, bottom]} in an image {height} high and {width} wide")
    layer = np.zeros((height, width), dtype=bool)
    layer[top:bottom, left:right] = part > 0
    return layer


__all__ = ["decode_segmentation", "draw_labelme_shape", "encode_mask", "image_as_mask"]
