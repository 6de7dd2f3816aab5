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
"""An annotation of a whole source by one process or several, which goes on where it was stopped."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from accelerate import PartialState
from tqdm import tqdm

from .annotator import Annotator, Prepared, Request
from .parts import Parts
from .sources import Source

REQUESTS_PER_PART = 64
"""A kill loses as many images at most; a constant, as parts are counted by it."""

T = TypeVar("T")


def annotate(annotator: Annotator, source: Source, parts: Parts, images_per_batch: int) -> dict[str, Any] | None:
    """
    Asks everything of a source and writes it. Reading runs ahead of the model in a thread, and writing behind it.

    Args:
        annotator: on the device of this process.
        source: the same for all processes, which share its parts.
        parts: where the rows go; what is there already is not asked again.
        images_per_batch (`int`): images that CLIP and SAM see at once.

    Returns:
        `rows`, `masks`, `errors`, `images` (of this start and process), `seconds` and `images_per_second`; `None` on
        all processes but the main one.

    Raises:
        ValueError: the source cannot be read, or the parts are of another annotation.
    """
    state = PartialState()
    if state.is_main_process:
        parts.open()
    state.wait_for_everyone()
    started, num_images, num_parts = time.perf_counter(), 0, 0
    mine = (state.process_index, state.num_processes)
    total = None if source.num_rows is None else -(-source.num_rows // state.num_processes)
    written: Future[None] | None = None
    rows: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    with (
        ThreadPoolExecutor(1) as writing,
        tqdm(total=total, unit="images", disable=not state.is_main_process) as progress,
    ):
        for number, part, batch, prepared in _in_background(
            _batches(annotator, source, parts, mine, images_per_batch)
        ):
            num_parts = number + 1
            if prepared is not None:
                rows += annotator.annotate(prepared)
                errors += prepared.errors
                num_images += len(batch)
            progress.update(sum(request.num_rows for request in batch))
            if prepared is not None and batch[-1] is part[-1]:
                if written is not None:
                    written.result()  # a full disk ends the run here
                written = writing.submit(parts.write, number, part, rows, errors)
                rows, errors = [], []
        if written is not None:
            written.result()
    state.wait_for_everyone()
    seconds = time.perf_counter() - started
    if not state.is_main_process:
        return None
    return finish(parts, num_parts, num_images, seconds)


def split_into_parts(source: Source) -> Iterator[list[Request]]:
    """The requests of a source by the parts that they are written in."""
    requests = iter(source.requests)
    while part := list(islice(requests, REQUESTS_PER_PART)):
        yield part


def finish(parts: Parts, num_parts: int, num_images: int, seconds: float) -> dict[str, Any]:
    """Makes the output of its parts, and reports what was written and how fast."""
    report: dict[str, Any] = {"output": str(parts.output), **parts.assemble(num_parts)}
    return report | {"images": num_images, "seconds": seconds, "images_per_second": num_images / seconds}


def _batches(
    annotator: Annotator, source: Source, parts: Parts, mine: tuple[int, int], images_per_batch: int
) -> Iterator[tuple[int, list[Request], list[Request], Prepared | None]]:
    """
    Number and requests of each part, and each batch of it as the model takes it. What is there already, and what
    another process makes, comes as one batch of nothing.
    """
    index, num_processes = mine
    for number, part in enumerate(split_into_parts(source)):
        if number % num_processes != index:
            yield number, part, [], None
        elif parts.known(number, part):
            yield number, part, part, None
        else:
            for start in range(0, len(part), images_per_batch):
                batch = part[start : start + images_per_batch]
                yield number, part, batch, annotator.prepare(batch)


def _in_background(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Items that a thread computes, so many ahead of what is taken."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as reading:
        waiting = deque(reading.submit(next, iterator, end) for _ in range(ahead))  # type: ignore[arg-type]
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reading.submit(next, iterator, end))  # type: ignore[arg-type]
            yield item  # type: ignore[misc]


__all__ = ["REQUESTS_PER_PART", "annotate", "finish", "split_into_parts"]
