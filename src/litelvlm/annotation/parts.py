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
What an annotation has written so far, so that it goes on after a kill, and the files that it ends with.

    masks.parquet.parts/settings.json      of what the rows depend on
    masks.parquet.parts/part-000000.jsonl  of each 64 images in a row: what was asked, then rows and errors

A part appears when it is whole. At the end the parts become OUTPUT and `masks.parquet.errors.jsonl`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..extras import required
from .annotator import COLUMNS, Request

ENDINGS = (".parquet", ".json")


def check_output(output: Path, force: bool = False) -> None:
    """Raises a `ValueError` for another ending, no such folder or, without `force`, an output that is there."""
    if output.suffix not in ENDINGS:
        raise ValueError(f"OUTPUT is {str(output)!r}; it ends in {' or '.join(ENDINGS)} (COCO).")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {str(output.parent)!r} to write {output.name!r} into.")
    if output.exists() and not force and not _folder(output).exists():
        raise ValueError(f"There is {str(output)!r} already; --force replaces it, or name another OUTPUT.")


def _folder(output: Path) -> Path:
    return output.with_name(output.name + ".parts")


class Parts:
    """
    Args:
        output: the file to be made, `.parquet` or `.json` (COCO).
        settings (`dict`): what the rows depend on, as JSON can hold it.
        force (`bool`): begin anew, and replace an output that is there.

    Raises:
        ValueError: another ending, an output that is there, or parts of another annotation.
    """

    def __init__(self, output: Path, settings: dict[str, Any], force: bool = False):
        self.output = output
        self.folder = _folder(output)
        self.errors = output.with_name(output.name + ".errors.jsonl")
        self._settings = settings
        check_output(output, force)
        if self._belongs() and force:
            shutil.rmtree(self.folder)

    def open(self) -> None:
        """Makes the folder, or looks whether it is of the same annotation."""
        settings = self.folder / "settings.json"
        if not self.folder.exists():
            try:
                self.folder.mkdir()
            except OSError as error:
                where = str(self.output.parent)
                raise ValueError(f"{where!r} takes no new files: {error.strerror}; name another OUTPUT.") from error
            _write(settings, json.dumps(self._settings))
            return
        earlier = json.loads(settings.read_text(encoding="utf-8")) if self._belongs() else {}
        if different := [name for name in self._settings if earlier.get(name) != self._settings[name]]:
            raise ValueError(
                f"{str(self.folder)!r} was begun with other settings ({', '.join(different)} differ); --force begins "
                "anew, or name another OUTPUT."
            )

    def known(self, number: int, requests: Sequence[Request]) -> bool:
        """Whether a part is there; a ValueError if it was made of other images or texts."""
        path = self._path(number)
        if not path.exists():
            return False
        with open(path, encoding="utf-8") as file:
            earlier = json.loads(file.readline())
        if earlier != _header(requests):
            raise ValueError(
                f"{str(path)!r} was made of other images or texts than INPUT has there now; --force begins anew."
            )
        return True

    def write(
        self, number: int, requests: Sequence[Request], rows: list[dict[str, Any]], errors: list[dict[str, Any]]
    ) -> None:
        lines = [_header(requests), *({"row": row} for row in rows), *({"error": error} for error in errors)]
        _write(self._path(number), "".join(json.dumps(line) + "\n" for line in lines))

    def assemble(self, num_parts: int) -> dict[str, int]:
        """
        Makes the output and the file of errors, removes the parts, and tells how many rows and errors there are.

        Raises:
            ValueError: there are errors only. Then no output is made, and the next start asks everything again.
        """
        counts = {"rows": 0, "masks": 0, "errors": 0}
        for kind, content in self._lines(num_parts):
            counts["rows"] += kind == "row"
            counts["masks"] += kind == "row" and content["segmentation"] is not None
            counts["errors"] += kind == "error"
        if counts["errors"]:
            with open(f"{self.errors}.incomplete", "w", encoding="utf-8") as file:
                file.writelines(
                    json.dumps(content) + "\n" for kind, content in self._lines(num_parts) if kind == "error"
                )
            os.replace(file.name, self.errors)
        else:
            self.errors.unlink(missing_ok=True)
        if counts["errors"] and not counts["rows"]:
            first = next(content for _, content in self._lines(num_parts))
            shutil.rmtree(self.folder)
            raise ValueError(
                f"All {counts['errors']} texts failed, the first (image {first['image']!r}) with: "
                f"{first['error'].rstrip('.')}. {str(self.errors)!r} names all; {self.output.name!r} is not written."
            )
        temporary = self.output.with_name(self.output.name + ".incomplete")
        make = self._make_parquet if self.output.suffix == ".parquet" else self._make_coco
        make(temporary, num_parts)
        os.replace(temporary, self.output)
        shutil.rmtree(self.folder)
        return counts

    def _make_parquet(self, path: Path, num_parts: int) -> None:
        pyarrow: Any = required("pyarrow")
        text = pyarrow.string()
        runs = pyarrow.struct({"size": pyarrow.list_(pyarrow.int32()), "counts": text})
        types = dict.fromkeys(COLUMNS, text)
        types |= {"segmentation": runs, "bbox": pyarrow.list_(pyarrow.int32()), "area": pyarrow.int64()}
        types |= {"score": pyarrow.float32(), "num_retained_tokens": pyarrow.int32()}
        schema = pyarrow.schema(types)
        with required("pyarrow.parquet").ParquetWriter(path, schema) as writer:
            group: list[dict[str, Any]] = []
            for row in self._rows(num_parts):
                group.append(row)
                if len(group) == 4096:
                    writer.write_table(pyarrow.Table.from_pylist(group, schema))
                    group = []
            writer.write_table(pyarrow.Table.from_pylist(group, schema))

    def _make_coco(self, path: Path, num_parts: int) -> None:
        images: dict[str, dict[str, Any]] = {}
        categories: dict[str, int] = {}
        info: dict[str, Any] = {}
        for row in self._rows(num_parts):
            described = {"id": len(images) + 1, "file_name": row["image"]}
            images.setdefault(row["image"], described | {"height": row["size"][0], "width": row["size"][1]})
            categories.setdefault(row["text"], len(categories) + 1)
            info = {name: row[name] for name in ("model", "revision")}
        named = [{"id": number, "name": text} for text, number in categories.items()]
        head = {"info": info, "images": list(images.values()), "categories": named}
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(head)[:-1] + ', "annotations": [')
            masks = (row for row in self._rows(num_parts) if row["segmentation"] is not None)
            for number, row in enumerate(masks, 1):
                ids = {"id": number, "image_id": images[row["image"]]["id"], "category_id": categories[row["text"]]}
                said = {name: row[name] for name in COLUMNS if name not in ("image", "model", "revision")}
                said["bbox"] = row["bbox"] or [0, 0, 0, 0]
                file.write(",\n" * (number > 1) + json.dumps(ids | {"iscrowd": 0} | said))
            # COCO's tools take an annotation without a segmentation for damage
            file.write('], "without_mask": [')
            others = (row for row in self._rows(num_parts) if row["segmentation"] is None)
            for number, row in enumerate(others):
                said = {name: row[name] for name in ("text", "answer", "reason")}
                said = {"image_id": images[row["image"]]["id"]} | said
                file.write(",\n" * (number > 0) + json.dumps(said))
            file.write("]}\n")

    def _rows(self, num_parts: int) -> Iterator[dict[str, Any]]:
        return (content for kind, content in self._lines(num_parts) if kind == "row")

    def _lines(self, num_parts: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(num_parts):
            with open(self._path(number), encoding="utf-8") as file:
                file.readline()
                for line in file:
                    yield from json.loads(line).items()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.jsonl"

    def _belongs(self) -> bool:
        return (self.folder / "settings.json").is_file()


def _header(requests: Sequence[Request]) -> dict[str, Any]:
    asked = [(request.name, list(request.texts), request.question_template) for request in requests]
    digest = hashlib.blake2b(json.dumps(asked, default=str).encode(), digest_size=8).hexdigest()
    return {"asked": digest, "num_rows": sum(request.num_rows for request in requests)}


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"{path.name}.incomplete")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


__all__ = ["ENDINGS", "Parts", "check_output"]
