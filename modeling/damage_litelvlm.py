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
"""What is damaged in a checkpoint: names its file where the libraries that read it fail without a name."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

# What each file of a saved folder must hold to be what its name says; all are JSON objects
_KEYS = {"tokenizer.json": {"model", "added_tokens"}, "model.safetensors.index.json": {"weight_map"}}
_MEND = "download or save it anew"
_LFS = b"version https://git-lfs"


def is_finite(weight: torch.Tensor) -> bool:
    """Whether a weight holds neither NaN nor infinity: its sum shows it, and needs no copy as a mask would."""
    return not weight.is_floating_point() or bool(weight.sum(dtype=torch.float32).isfinite())


def read_json(path: Path, mend: str = _MEND) -> dict[str, Any]:
    """
    The JSON object of a file.

    Raises:
        ValueError: names the file that holds none, and says how to mend it.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no JSON ({error}); {mend}.") from error
    if not isinstance(held, dict):
        raise ValueError(f"{str(path)!r} holds a JSON {type(held).__name__} in place of an object; {mend}.")
    return held


@contextmanager
def naming_damage(name: str | os.PathLike) -> Iterator[None]:
    """
    For the loading of a local folder. Of a repository on the Hub the files are checked as they arrive.

    Raises:
        ValueError: loading failed, and this file is damaged; any other failure stays as it is.
    """
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:  # libraries answer damage by AttributeError, KeyError, TypeError and kinds of their own
        _check_files(Path(name))
        if type(error).__name__ == "SafetensorError":
            raise ValueError(f"{str(name)!r} has weights that are cut off or damaged ({error}); {_MEND}.") from error
        raise


def _check_files(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise ValueError(
                    f"{str(path)!r} is a pointer of Git LFS in place of the weights, which `git lfs pull` fetches; "
                    f"{_MEND}."
                )
    for path in sorted([*folder.glob("*.json"), *folder.glob("*_tokenizer/*.json")]):
        if not path.name.endswith("config.json") and path.name not in _KEYS:
            continue
        if missing := _KEYS.get(path.name, set()) - read_json(path).keys():
            raise ValueError(f"{str(path)!r} lacks {', '.join(sorted(missing))}; {_MEND}.")


__all__ = ["is_finite", "naming_damage", "read_json"]
