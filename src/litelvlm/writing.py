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
"""Files that are written whole or not at all: a full disk or an interruption leaves what stood there before."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """
    Gives the path of a temporary file to write, beside the one that is wanted and with its suffix. After the block it
    takes the other's place; if the block fails, it is removed.

    Raises:
        OSError: the file cannot be written, or not to its end; it names the file that is wanted.
    """
    path = Path(os.path.realpath(path))  # a link stays, what it leads to is replaced
    if path.exists() and not path.is_file():  # such as /dev/stdout
        yield path
        return
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.incomplete{path.suffix}")
    try:
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):  # a name that nobody knows
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8, as [`replacing`] does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_separate(paths: dict[str, str | Path | None]) -> None:
    """
    Looks whether what is read and what is written are files of their own, links to one file included.

    Args:
        paths: by the words that the user knows them by; `None` is not given.

    Raises:
        ValueError: names two that are one file.
    """
    given = [(name, path) for name, path in paths.items() if path is not None]
    for (one, first), (other, second) in combinations(given, 2):
        same_name = os.path.realpath(first) == os.path.realpath(second)
        regular = os.path.isfile(first) and os.path.isfile(second)
        if (same_name and not os.path.exists(first)) or (regular and os.path.samefile(first, second)):
            raise ValueError(f"{one} and {other} are the same file, {str(second)!r}; name another one.")


__all__ = ["check_separate", "replacing", "write_text"]
