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
"""Libraries that only an extra of this package brings."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def required(name: str, extra: str = "eval") -> ModuleType:
    """
    A library that only an extra of this package brings, by default that for evaluation.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.partition(".")[0], extra) from error


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Around imports of what an extra brings; a `ValueError` names the library that is not installed."""
    try:
        yield
    except ImportError as error:
        raise _missing(error.name, extra) from error


def _missing(name: str | None, extra: str) -> ValueError:
    return ValueError(f'The library {name!r} is not installed; install it with pip install "litelvlm[{extra}]".')


__all__ = ["needing", "required"]
