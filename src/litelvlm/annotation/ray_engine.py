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
The same annotation by actors of Ray Data, on one machine or a cluster whose nodes share the folder of the output.

Ray starts the actors, gives them GPUs, and does again what a lost one was working at. Where it goes on is told by the
parts, as in the local engine: Ray Data's checkpoints want one row of output for each of input, and an image gives any
number of masks.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import cloudpickle

from .annotate import finish, split_into_parts
from .annotator import Annotator, Request
from .parts import Parts
from .sources import Source


def annotate_on_ray(
    load: Callable[[], Annotator],
    source: Source,
    parts: Parts,
    images_per_batch: int,
    num_workers: int = 1,
    num_gpus_per_worker: float = 0.0,
) -> dict[str, Any]:
    """
    Asks everything of a source and writes it.

    Args:
        load: makes the annotator, in each actor.
        source: read here; what it holds of images by themselves, and not by their files, is sent to the actors.
        parts: where the rows go, in a folder that all nodes see; what is there already is not asked again.
        images_per_batch (`int`): images that CLIP and SAM see at once.
        num_workers (`int`): actors.
        num_gpus_per_worker (`float`): that Ray reserves for each.

    Returns:
        As [`annotate`].

    Raises:
        ValueError: the source cannot be read, or the parts are of another annotation.
    """
    started = time.perf_counter()
    parts.open()
    num_parts, missing, num_images = 0, [], 0
    for number, part in enumerate(split_into_parts(source)):
        num_parts = number + 1
        if not parts.known(number, part):
            missing.append({"number": number, "part": cloudpickle.dumps(part)})
            num_images += len(part)
    if missing:
        ray.data.DataContext.get_current().enable_progress_bars = False
        dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
        dataset.map_batches(
            _Worker,
            fn_constructor_args=(load, parts, images_per_batch, os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(missing))),
            num_gpus=num_gpus_per_worker,
        ).materialize()
    return finish(parts, num_parts, num_images, time.perf_counter() - started)


class _Worker:
    def __init__(self, load: Callable[[], Annotator], parts: Parts, images_per_batch: int, folder: str):
        os.chdir(folder)  # images may be named from there
        self.annotator, self.parts, self.images_per_batch = load(), parts, images_per_batch

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number, content in zip(batch["number"].tolist(), batch["part"], strict=True):
            self._make(number, cloudpickle.loads(content))
        return {"number": batch["number"]}

    def _make(self, number: int, part: Sequence[Request]) -> None:
        rows: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for start in range(0, len(part), self.images_per_batch):
            prepared = self.annotator.prepare(part[start : start + self.images_per_batch])
            rows += self.annotator.annotate(prepared)
            errors += prepared.errors
        self.parts.write(number, part, rows, errors)


__all__ = ["annotate_on_ray"]
