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
"""The folder that a conversion makes: it appears whole or not at all, and nothing that is not ours is touched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".litelvlm-convert.lock"
"""Tells a conversion's folder from a user's own, and a running conversion from one that was killed."""


@contextmanager
def making(dest: Path) -> Iterator[Path]:
    """
    Gives an empty folder, `DEST.incomplete`, which becomes `dest` after the block. If the block fails, it is removed;
    what a killed conversion left is removed by the next.

    Raises:
        ValueError: `dest` exists, `DEST.incomplete` is no conversion's, or another conversion is at work in it.
    """
    check_free(dest)
    incomplete = dest.with_name(f"{dest.name}.incomplete")
    dest.parent.mkdir(parents=True, exist_ok=True)
    try:
        incomplete.mkdir()
    except FileExistsError:
        if not (incomplete / LOCK).is_file():
            raise ValueError(
                f"{str(incomplete)!r} exists, and is no interrupted conversion; move it, or name another folder."
            ) from None
    try:
        with FileLock(incomplete / LOCK, timeout=0):
            check_free(dest)  # another conversion may have ended just now
            try:
                for path in set(incomplete.iterdir()) - {incomplete / LOCK}:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                yield incomplete
                (incomplete / LOCK).unlink()
                incomplete.rename(dest)
            except BaseException:
                shutil.rmtree(incomplete, ignore_errors=True)
                raise
    except Timeout:
        raise ValueError(
            f"Another conversion is at work in {str(incomplete)!r}; wait for it, or name another folder."
        ) from None


def check_free(dest: Path) -> None:
    """Raises ValueError if there is something of that name, a broken link too."""
    if dest.exists() or dest.is_symlink():
        raise ValueError(f"{str(dest)!r} exists; name a folder that does not, or remove it first.")


__all__ = ["LOCK", "check_free", "making"]
