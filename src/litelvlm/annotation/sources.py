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
"""Where images and texts come from: folders, lists, tables, annotations and data sets."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from ..data.registry import NAMES, load_split, splits_of
from ..data.samples import read_json
from ..data.tables import repeated_ids
from ..extras import required
from ..hub import check_reachable
from .annotator import Request

TABLES = (".csv", ".jsonl", ".parquet")
_OF_DATASETS = (*TABLES, ".json", ".arrow", ".tar", ".zip", ".gz", ".txt")  # a folder of such is a data set


@dataclass(frozen=True)
class Source:
    """
    Args:
        requests: in an order that is the same at every start; rows about one image that follow each other are one.
        num_rows (`int`, *optional*): images of a folder, a list or annotations, rows of a table; `None` if not known.
    """

    requests: Iterable[Request]
    num_rows: int | None


def open_source(
    name: str, texts: Sequence[str] | None = None, folder: Path | None = None, split: Sequence[str] | None = None
) -> Source:
    """
    Args:
        name: a folder of images, a `.txt` with one on each line, a `.csv`, `.jsonl` or `.parquet` with the columns
            `image` and `text`, COCO's `.json` (whose annotations have a `text` or a category), `refcoco` and the other
            data sets of [`NAMES`], or a data set of the Hub, which is streamed.
        texts: what is asked of every image, instead of what the source says.
        folder: from which images are named, by default that of the file; of RefCOCO and ReasonSeg, what holds them.
        split: of a data set, by default those that papers report, or `train` on the Hub.

    Raises:
        ValueError: there is no such source, it cannot be read, or says nothing to ask.
    """
    if name == "-":
        raise ValueError(
            "INPUT is -, but annotate reads no standard input; name a folder, a list, a table or a data set."
        )
    path = Path(name)
    folder = path.parent if folder is None and path.is_file() else folder
    if path.is_dir() and (images := _images_in(path)):
        return _each(images, path, texts, name)
    if path.suffix == ".txt":
        lines = _text(path).splitlines()
        return _each([line.strip() for line in lines if line.strip()], folder, texts, name)
    if path.suffix == ".json":
        return _coco(path, folder, texts)
    if path.suffix in TABLES:
        rows, count = _table(path)
        return Source(_group(rows, name, folder, texts), count)
    if name.partition(":")[0] in NAMES:
        return _dataset(name, texts, folder, split)
    if path.is_dir():
        if not any(file.suffix in _OF_DATASETS for file in path.rglob("*")):
            raise ValueError(f"The folder {name!r} holds no images, nor a data set.")
        return _hub(name, texts, split)
    is_image = path.suffix.lower() in Image.registered_extensions()
    if is_image and (path.is_file() or "://" in name):
        raise ValueError(f"INPUT {name!r} is one image; use litelvlm segment, or name its folder.")
    if is_image or path.is_file() or name.count("/") > 1:
        raise ValueError(f"There is no folder, list, table or data set {name!r}.")
    return _hub(name, texts, split)


def _images_in(folder: Path) -> list[str]:
    kinds = Image.registered_extensions()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    return [path.relative_to(folder).as_posix() for path in found]


def _each(images: Sequence[str], folder: Path | None, texts: Sequence[str] | None, name: str) -> Source:
    if not texts:
        raise ValueError(f"{name!r} says nothing to ask; give the texts by --text.")
    return Source([Request(_place(image, folder), texts, image) for image in images], len(images))


def _place(image: Any, folder: Path | None) -> Any:
    """A file where it lies; URLs and images themselves as they are."""
    if not isinstance(image, str) or folder is None or "://" in image or image.startswith("data:"):
        return image
    return str(folder / image)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"There is no file {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as text: {error}.") from error


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(path: Path) -> tuple[Iterator[dict[str, Any]], int]:
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    if path.suffix == ".parquet":
        try:
            count = required("pyarrow.parquet").ParquetFile(path).metadata.num_rows
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be read: {error}.") from error
        return iter(_stream("parquet", data_files=str(path), split="train")), count
    read = _csv_rows if path.suffix == ".csv" else _json_rows
    return read(path), sum(
        1 for _ in read(path)
    )  # once through, so that what is damaged is told before the model runs


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file of lines; an error while they are read names it."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}.") from error


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        yield from csv.DictReader(file)


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{str(path)!r}: line {number} cannot be read: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{str(path)!r}: line {number} is no object with `image` and `text`.")
            if row:
                yield row


def _stream(*args: Any, **kwargs: Any) -> Any:
    rows = required("datasets").load_dataset(*args, streaming=True, **kwargs)
    # Images stay bytes until the batch is made: one that is broken must not end the stream
    return rows.decode(False) if rows.features else rows


def _hub(name: str, texts: Sequence[str] | None, split: Sequence[str] | None) -> Source:
    if split is not None and len(split) > 1:
        raise ValueError(f"--split names {len(split)} splits; of a data set of the Hub one is read.")
    check_reachable(name, "dataset")
    rows = _stream(name, split=split[0] if split else "train")
    known = (rows.info.splits or {}).get(str(rows.split))
    return Source(_group(rows, name, None, texts), known.num_examples if known else None)


def _group(
    rows: Iterable[dict[str, Any]], name: str, folder: Path | None, texts: Sequence[str] | None
) -> Iterator[Request]:
    wanted = {"image"} if texts else {"image", "text"}
    numbered = ((number, row) for number, row in enumerate(rows))
    for image, found in groupby(numbered, key=lambda pair: pair[1].get("image")):
        same = list(found)
        number, first = same[0]
        if missing := wanted - first.keys():
            raise ValueError(
                f"{name!r} has no column {', '.join(sorted(missing))}; it has {', '.join(map(str, first))}. Texts for "
                "every image are given by --text."
            )
        asked = list(texts or [])
        for _, row in [] if texts else same:
            # An empty list is a text that is missing, and an error as such
            asked += row["text"] if row["text"] and isinstance(row["text"], list) else [row["text"]]
        said = image.get("path") if isinstance(image, dict) else image
        place = image if isinstance(image, dict) and image.get("bytes") else _place(said, folder)
        yield Request(place, asked, said if isinstance(said, str) else f"row {number}", num_rows=len(same))


# --- annotations -----------------------------------------------------------------------------------------------------


def _coco(path: Path, folder: Path | None, texts: Sequence[str] | None) -> Source:
    data = read_json(path)
    try:
        categories = {category["id"]: category["name"] for category in data.get("categories", [])}
        for kind in ("images", "annotations"):
            if twice := repeated_ids(data.get(kind, [])):
                raise ValueError(f"'{path}': several {kind} have the id {min(twice)}; give each its own.")
        asked: dict[Any, list[Any]] = {image["id"]: list(texts or []) for image in data["images"]}
        for annotation in [] if texts else data["annotations"]:
            text = annotation["text"] if "text" in annotation else categories[annotation["category_id"]]
            if text not in asked[annotation["image_id"]]:
                asked[annotation["image_id"]].append(text)
        requests = [
            Request(_place(image["file_name"], folder), asked[image["id"]], image["file_name"])
            for image in data["images"]
            if asked[image["id"]]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{path}' is not in COCO's format: {error!r}.") from error
    return Source(requests, len(requests))


def _dataset(name: str, texts: Sequence[str] | None, root: Path | None, splits: Sequence[str] | None) -> Source:
    requests = []
    for split in splits or splits_of(name):
        for entry in load_split(name, split, root or "."):
            for template, same in groupby(entry.expressions, key=lambda expression: expression.question_template):
                asked = [expression.text for expression in same]
                requests.append(Request(entry.load_image, texts or asked, f"{split}/{entry.id}", template))
    return Source(requests, len(requests))


__all__ = ["TABLES", "Source", "open_source"]
