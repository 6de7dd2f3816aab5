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

A `mask` is an image (nonzero inside), its rows, run lengths or polygons as in COCO, or null where nothing is
meant. `text` may be a list; `mask` is then one of the same length.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..extras import required
from ..modeling.images_litelvlm import load_rgb, open_image
from .masks import decode_segmentation, image_as_mask
from .samples import (
    BrokenAnnotation,
    Referring,
    ReferringImage,
    broken,
    broken_image,
    is_id,
    read_image,
    read_json,
    refer,
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
        texts = text if isinstance(text, list) else [text]
        if not texts:
            entries.append(broken_image(str(row), f"{name} has no text."))
            continue
        asked = tuple(
            refer(f"{name}: text {i}", f"{row}-{i}", one, partial(_mask_of_row, table, row, i, name))
            for i, one in enumerate(texts)
        )
        entries.append(ReferringImage(str(row), partial(_image_of_row, table, row, name), asked))
    return entries


def _image_of_row(table: Any, row: int, name: str) -> Image.Image:
    try:
        return load_rgb(table[row]["image"])
    except Exception as error:  # each of Pillow's readers, and `datasets` around them, raises its own
        raise BrokenAnnotation(f"{name}: {error}") from error


def _mask_of_row(table: Any, row: int, number: int, name: str) -> np.ndarray | None:
    try:
        values = table[row]
        mask = values["mask"]
        if isinstance(values["text"], list):
            if not isinstance(mask, list) or len(mask) != len(values["text"]):
                raise ValueError(f"{len(values['text'])} texts need a list of as many masks")
            mask = mask[number]
        if mask is None:
            return None
        if isinstance(mask, list) or (isinstance(mask, dict) and "counts" in mask):
            width, height = load_rgb(values["image"]).size
            return decode_segmentation(mask, height, width)
        return image_as_mask(open_image(mask))
    except Exception as error:  # as above
        raise BrokenAnnotation(f"{name}: mask {number}: {error}") from error


# --- COCO ------------------------------------------------------------------------------------------------------------


def _load_coco(path: Path) -> list[ReferringImage]:
    data = read_json(path)
    lists: list[Any] = [data.get(name) for name in ("images", "annotations")] if isinstance(data, dict) else []
    if not lists or not all(isinstance(found, list) for found in lists):
        raise ValueError(f"'{path}' is not in COCO's format; it needs the lists `images` and `annotations`.")
    images = {image["id"]: image for image in lists[0] if isinstance(image, dict) and is_id(image.get("id"))}
    # Samples are told apart by ids as texts; which one of two is meant nobody knows
    twice_images, twice_annotations = (repeated_ids(found) for found in lists)
    # In the order of their first annotations: some programs write the images themselves in another order
    by_image: dict[Any, list[Referring]] = {}
    unread = []
    for number, annotation in enumerate(lists[1]):
        name = f"'{path}': annotation {number} of the list"
        if not isinstance(annotation, dict) or not all(is_id(annotation.get(key)) for key in ("id", "image_id")):
            unread.append(broken_image(f"annotation {number}", f"{name} has no `id` and `image_id`."))
            continue
        name = f"'{path}': annotation {annotation['id']}"
        load_mask: Callable[[], np.ndarray | None] = partial(
            _coco_mask, name, annotation, images.get(annotation["image_id"])
        )
        if str(annotation["id"]) in twice_annotations:
            load_mask = partial(broken, f"{name}: several annotations have this id.")
        asked = refer(name, str(annotation["id"]), annotation.get("text"), load_mask)
        by_image.setdefault(annotation["image_id"], []).append(asked)
    entries = []
    for number, found in by_image.items():
        if str(number) in twice_images:
            unique = partial(broken, f"'{path}': image {number}: several images have this id.")
            entries.append(ReferringImage(str(number), unique, tuple(found)))
        else:
            entries.append(_coco_entry(path, number, images.get(number), tuple(found)))
    return entries + unread


def repeated_ids(listed: list[Any]) -> set[str]:
    """The ids, as texts, that several images or annotations of COCO's format have."""
    counts = Counter(str(one["id"]) for one in listed if isinstance(one, dict) and is_id(one.get("id")))
    return {number for number, count in counts.items() if count > 1}


def _coco_entry(path: Path, number: Any, image: dict[str, Any] | None, asked: tuple[Referring, ...]) -> ReferringImage:
    if image is None:
        return ReferringImage(str(number), partial(broken, f"'{path}': there is no image {number}."), asked)
    file_name = image.get("file_name")
    if not isinstance(file_name, str) or "\0" in file_name:
        unread = partial(broken, f"'{path}': image {number} has the file name {file_name!r:.80}.")
        return ReferringImage(str(number), unread, asked)
    candidates = [path.parent / file_name, path.parent / "images" / file_name]
    image_path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    return ReferringImage(str(number), partial(read_image, image_path, f"image {number}"), asked)


def _coco_mask(name: str, annotation: dict[str, Any], image: dict[str, Any] | None) -> np.ndarray | None:
    try:
        if annotation["segmentation"] in (None, []) or image is None:
            return None
        return decode_segmentation(annotation["segmentation"], image["height"], image["width"])
    except (ValueError, KeyError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise BrokenAnnotation(f"{name}: {reason}.") from error


__all__ = ["find_splits", "load_tables", "repeated_ids"]
