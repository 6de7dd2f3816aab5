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
The files in which an evaluation remembers what it has measured: one line of JSON for each image.

Each process writes into a file of its own (`samples-0.jsonl`, ...), whose first line holds the settings.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


def read_lines(folder: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """
    What earlier starts have measured. A last line that was cut off while it was written is left out.

    Raises:
        ValueError: a file was written with other settings, or a line is damaged.
    """
    for path in sorted(folder.glob("samples-*.jsonl")):
        lines = [_parse(path, i, line) for i, line in enumerate(_whole_lines(path).splitlines(), 1)]
        earlier = lines[0]["settings"] if lines else settings
        if earlier != settings:
            different = [name for name in settings if earlier.get(name) != settings[name]]
            raise ValueError(
                f"'{path}' is of another evaluation ({', '.join(different)} differ); name another folder by --output, "
                "or delete this one."
            )
        yield from lines[1:]


def open_samples(path: Path, settings: dict[str, Any]) -> TextIO:
    """
    The file of a process, open for further lines; a line that was cut off is removed, settings are written.

    Raises:
        ValueError: the file is no evaluation's.
    """
    path.touch()
    whole, start = _whole_lines(path), b'{"settings": '
    if not path.read_bytes().startswith(start[: path.stat().st_size]):
        raise ValueError(f"'{path}' is no evaluation's; move it, or name another folder by --output.")
    os.truncate(path, len(whole))
    if path.stat().st_size == 0:
        path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
    return open(path, "a", encoding="utf-8")


def _whole_lines(path: Path) -> bytes:
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
        # The first line says what was measured, and each other one what was counted of an image
        if number == 1:
            sound = isinstance(parsed["settings"], dict)
        else:
            sound = all(isinstance(parsed[name], str) for name in ("key", "content"))
            sound &= isinstance(parsed["broken"], list)
            sound &= all(_is_counts(counts) for run in parsed["counts"].values() for counts in run)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        mend = "delete the file" if number == 1 else "delete the line, and its image is measured again"
        raise ValueError(f"'{path}', line {number} is damaged; {mend}.")
    return parsed


def _is_counts(counts: Any) -> bool:
    """`[expression, intersection, union, predicted, expected, kept]`"""
    return isinstance(counts, list) and len(counts) == 6 and all(type(number) is int for number in counts[1:])


__all__ = ["open_samples", "read_lines"]
