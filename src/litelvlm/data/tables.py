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
Any dataset as a table of images, texts and masks: Parquet files, or COCO's JSON with a text for each annotation.

    folder/val.parquet, folder/val-00000-of-00002.parquet, ...   columns `image`, `text`, `mask`
    folder/val.json                                              `images`, `annotations` with `text`

A `mask` is an image (nonzero inside), run lengths or polygons as in COCO, or null where nothing is meant. `text` may
be a list; `mask` is then one of the same length.
"""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..modeling.images_litelvlm import load_rgb
from .samples import (
    BrokenAnnotation,
    Referring,
    ReferringImage,
    broken,
    decode_segmentation,
    read_image,
    required,
)


def find_splits(path: Path) -> list[str]:
    """Names of the splits in a folder, or the one that a file is."""
    paths = [path] if path.is_file() else sorted(p for kind in ("*.parquet", "*.json") for p in path.glob(kind))
    return list(dict.fromkeys(p.stem.partition("-0")[0] for p in paths))


def load_tables(path: Path, split: str) -> list[ReferringImage]:
    """
    A split of a folder, or of a single file.

    Raises:
        ValueError: no such file, columns that are missing, or a file that cannot be read.
    """
    if path.is_file():
        paths = [path]
    else:
        paths = [p for kind in ("*.parquet", "*.json") for p in sorted(path.glob(kind)) if find_splits(p) == [split]]
    if not paths:
        there = ", ".join(find_splits(path)) or "none"
        raise ValueError(f"There is no '{path / split}.parquet' or .json; splits in the folder: {there}.")
    return _load_coco(paths[0]) if paths[0].suffix == ".json" else _load_parquet(paths)


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _load_parquet(paths: list[Path]) -> list[ReferringImage]:
    datasets: Any = required("datasets")
    try:
        table = datasets.Dataset.from_parquet([str(path) for path in paths], keep_in_memory=False)
    except Exception as error:  # each library behind `datasets` raises its own
        raise ValueError(f"'{paths[0]}' cannot be read: {str(error).strip().splitlines()[0]}") from error
    missing = {"image", "text", "mask"} - set(table.column_names)
    if missing:
        raise ValueError(f"'{paths[0]}' has no column {', '.join(sorted(missing))}; it has {table.column_names}.")
    entries = []
    for row, text in enumerate(table["text"]):
        name = f"'{paths[0]}': row {row}"
        asked = tuple(
            Referring(f"{row}-{i}", str(one), partial(_mask_of_row, table, row, i, name))
            for i, one in enumerate(text if isinstance(text, list) else [text])
        )
        entries.append(ReferringImage(str(row), partial(_image_of_row, table, row, name), asked))
    return entries


def _image_of_row(table: Any, row: int, name: str) -> Image.Image:
    try:
        return _image(table[row]["image"])
    except (ValueError, OSError, TypeError) as error:
        raise BrokenAnnotation(f"{name}: {error}") from error


def _mask_of_row(table: Any, row: int, number: int, name: str) -> np.ndarray | None:
    values = table[row]
    mask = values["mask"]
    try:
        if isinstance(values["text"], list):
            mask = mask[number]
        if mask is None:
            return None
        if isinstance(mask, list) or (isinstance(mask, dict) and "counts" in mask):
            width, height = _image(values["image"]).size
            return decode_segmentation(mask, height, width)
        return (np.asarray(_image(mask).convert("L")) > 0).astype(np.uint8)
    except (ValueError, OSError, TypeError, IndexError) as error:
        raise BrokenAnnotation(f"{name}: mask {number}: {error}") from error


def _image(value: Any) -> Image.Image:
    """A cell as an image: decoded by `datasets`, or its bytes, or its path."""
    if isinstance(value, dict):
        value = Image.open(io.BytesIO(value["bytes"])) if value.get("bytes") else value.get("path")
    return load_rgb(value)


# --- COCO ------------------------------------------------------------------------------------------------------------


def _load_coco(path: Path) -> list[ReferringImage]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in data["images"]}
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for annotation in data["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        # In the order of their first annotations: some programs write the images themselves in another order
        return [_coco_entry(path, number, images.get(number), found) for number, found in by_image.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is not in COCO's format with a `text` for each annotation: {error!r}.") from error


def _coco_entry(path: Path, number: Any, image: dict[str, Any] | None, found: list[dict[str, Any]]) -> ReferringImage:
    asked = tuple(
        Referring(str(annotation["id"]), annotation["text"], partial(_coco_mask, path, annotation, image))
        for annotation in found
    )
    if image is None:
        return ReferringImage(str(number), partial(broken, f"'{path}': there is no image {number}."), asked)
    candidates = [path.parent / image["file_name"], path.parent / "images" / image["file_name"]]
    image_path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    return ReferringImage(str(number), partial(read_image, image_path, f"image {number}"), asked)


def _coco_mask(path: Path, annotation: dict[str, Any], image: dict[str, Any] | None) -> np.ndarray | None:
    if image is None or not annotation.get("segmentation"):
        return None
    try:
        return decode_segmentation(annotation["segmentation"], image["height"], image["width"])
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenAnnotation(f"'{path}': annotation {annotation['id']}: {error}") from error


__all__ = ["find_splits", "load_tables"]
