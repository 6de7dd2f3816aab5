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
The service as an application of Ray Serve, which does the batching, routing, queues, replicas and health checks.

    Gateway     reads requests and looks at limits; retries what a lost replica has not answered
    Segmenter   a model, and the states of the images that it saw last

`litelvlm serve` runs it on one machine; on a cluster `serve deploy` takes a config whose `import_path` is
`litelvlm.serving.app:build`.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import NodeDiedError, RayActorError, RayTaskError
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from transformers import AsyncTextIteratorStreamer

from ..commands.loading import load_model, pick_device
from ..hub import public_name
from ..tiny import TINY_MODEL
from .api import create_api
from .gate import read_token
from .settings import RefusedError, Settings
from .worker import Item, Question, Worker

TOKEN_VARIABLE = "LITELVLM_TOKEN"
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt at a question whose replica was lost: Ray learns of a dead node by and by."""
_LOST = (RayActorError, NodeDiedError, ReplicaUnavailableError)


def build(arguments: dict[str, Any]) -> serve.Application:
    """
    Args:
        arguments: those of [`Settings`], as the `args` of a Serve config hold them.

    Raises:
        ValueError: an unknown setting, or one that makes no sense.
    """
    settings = Settings.read(arguments)

    def make_api() -> Any:
        name = public_name(settings.model or TINY_MODEL)
        return create_api(settings, name, find_token(settings), lambda: serve.get_replica_context().servable_object)

    # Enough that one batch is prepared while another is answered
    ongoing = 2 * settings.batch_size
    replicas: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.max_replicas is not None:
        scale = {"min_replicas": settings.replicas, "max_replicas": settings.max_replicas}
        replicas = {"autoscaling_config": scale | {"target_ongoing_requests": settings.batch_size}}
    segmenter = serve.deployment(
        Segmenter,
        max_ongoing_requests=ongoing,
        max_queued_requests=settings.max_waiting,
        graceful_shutdown_timeout_s=settings.max_seconds,
        ray_actor_options={"num_cpus": settings.num_cpus_per_replica, "num_gpus": settings.num_gpus_per_replica},
        **replicas,
    )
    most = ongoing * (settings.max_replicas or settings.replicas) + settings.max_waiting
    gateway = serve.deployment(
        serve.ingress(make_api)(Gateway),
        name="Gateway",
        # More, so that who is refused is told so at once, and who sends slowly holds up nobody
        max_ongoing_requests=most + 128,
        max_queued_requests=128,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        graceful_shutdown_timeout_s=settings.max_seconds,
        ray_actor_options={"num_cpus": 0},
    )
    return gateway.bind(segmenter.bind(settings))


def find_token(settings: Settings) -> str | None:
    """From the file, or else the variable LITELVLM_TOKEN, so that it stands in no list of processes and no config."""
    if settings.token_file is not None:
        return read_token(Path(settings.token_file).read_text(encoding="utf-8"))
    return read_token(os.environ[TOKEN_VARIABLE]) if os.environ.get(TOKEN_VARIABLE) else None


class Gateway:
    """Hands questions to the replicas of the model."""

    def __init__(self, segmenter: DeploymentHandle):
        self.segmenter = segmenter
        self.num_accepted = 0
        self.is_stopping = False

    async def answer(self, question: Question) -> dict[str, Any]:
        """As [`Worker.answer`]. Raises RefusedError."""
        for wait in (*WAITS, None):
            response = self.segmenter.answer.remote(question)
            try:
                return await response
            except _LOST:
                if wait is None:
                    raise _lost() from None
                await asyncio.sleep(wait)
            except (BackPressureError, RayTaskError) as error:
                raise _refusal(error) from error
            except asyncio.CancelledError:
                response.cancel()
                raise
        raise AssertionError

    async def stream(self, question: Question) -> AsyncIterator[str | dict[str, Any]]:
        """As `answer`, but first the text in pieces; tried again while nothing has been handed on."""
        for wait in (*WAITS, None):
            has_begun = False
            response = self.segmenter.options(stream=True).stream.remote(question)
            try:
                async for piece in response:
                    has_begun = True
                    yield piece
                return
            except _LOST:
                if has_begun or wait is None:
                    raise _lost() from None
                await asyncio.sleep(wait)
            except (BackPressureError, RayTaskError) as error:
                raise _refusal(error) from error
            finally:
                response.cancel()

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Around a request from its first byte to the last of its answer. Raises RefusedError."""
        self._check_goes_on()
        self.num_accepted += 1
        try:
            yield
        finally:
            self.num_accepted -= 1

    async def drain(self) -> None:
        """Accepts no further requests, and waits for those that it has: Ray Serve drops its queue as it stops."""
        self.is_stopping = True
        while self.num_accepted:
            await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        """Whether a replica of the model runs. Raises RefusedError where none is to go on."""
        self._check_goes_on()
        status = await asyncio.to_thread(serve.status)
        deployments = status.applications[serve.get_replica_context().app_name].deployments
        return deployments["Segmenter"].replica_states.get("RUNNING", 0) > 0

    def _check_goes_on(self) -> None:
        if self.is_stopping:
            raise RefusedError(503, "The server is being stopped.")


def _refusal(error: BackPressureError | RayTaskError) -> Exception:
    if isinstance(error, BackPressureError):
        return RefusedError(429, "Too many requests wait already; try again later.")
    return error.cause if isinstance(error.cause, RefusedError) else error


def _lost() -> RefusedError:
    return RefusedError(503, "What worked at this request was lost; try again.")


class Segmenter:
    """One replica: a thread prepares questions while another runs the model."""

    def __init__(self, settings: Settings):
        options = argparse.Namespace(**asdict(settings), device_map=None)
        model, processor = load_model(options, pick_device(settings.device))
        cache_bytes = settings.cache_mebibytes * 2**20
        self.worker = Worker(model, processor, settings.batch_size, settings.max_seconds, cache_bytes)
        self.preparing, self.running = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._answer.set_max_batch_size(settings.batch_size)
        self._answer.set_batch_wait_timeout_s(settings.batch_wait_milliseconds / 1000)

    async def answer(self, question: Question) -> dict[str, Any]:
        answered = await self._answer(await self._prepare(question))
        if isinstance(answered, RefusedError):
            raise answered
        return answered

    async def stream(self, question: Question) -> AsyncIterator[str | dict[str, Any]]:
        """Alone, as texts come one token after the other; the model is used by one at a time."""
        streamer = AsyncTextIteratorStreamer(
            self.worker.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        is_wanted = True
        item = await self._prepare(question, streamer=streamer, stopping_criteria=[lambda *_: not is_wanted])

        def run() -> dict[str, Any] | RefusedError:
            try:
                return self.worker.answer([item])[0]
            finally:  # of an answer that failed the streamer knows no end
                streamer.on_finalized_text("", stream_end=True)

        answering = asyncio.get_running_loop().run_in_executor(self.running, run)
        try:
            async for text in streamer:
                if text:
                    yield text
            answered = await answering
        finally:
            is_wanted = False
        if isinstance(answered, RefusedError):
            raise answered
        yield answered

    async def _prepare(self, question: Question, **generation: Any) -> Item:
        return await asyncio.get_running_loop().run_in_executor(
            self.preparing, lambda: self.worker.prepare(question, **generation)
        )

    @serve.batch
    async def _answer(self, items: list[Item]) -> list[dict[str, Any] | RefusedError]:
        return await asyncio.get_running_loop().run_in_executor(self.running, self.worker.answer, items)


__all__ = ["build", "find_token"]
