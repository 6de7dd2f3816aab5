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
"""The service without Ray: the same interface, with a model of this process behind it."""

import asyncio
import base64
from contextlib import nullcontext
from threading import Thread

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("cachetools")

from fastapi.testclient import TestClient
from transformers import AsyncTextIteratorStreamer

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.serving.api import create_api
from litelvlm.serving.settings import RefusedError, Settings
from litelvlm.serving.worker import Worker

NAME = "litelvlm-tiny"
IMAGE = base64.b64encode(EXAMPLE_IMAGE.read_bytes()).decode()
GIVEN = {"image": IMAGE, "texts": ["the red circle"], "answer": "It is [SEG]."}


class Local:
    """What stands behind the interface in place of Ray Serve."""

    def __init__(self, worker):
        self.worker = worker

    async def answer(self, question):
        (answered,) = self.worker.answer([self.worker.prepare(question)])
        if isinstance(answered, RefusedError):
            raise answered
        return answered

    async def stream(self, question):
        streamer = AsyncTextIteratorStreamer(
            self.worker.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        item = self.worker.prepare(question, streamer=streamer)
        answers = []
        thread = Thread(target=lambda: answers.extend(self.worker.answer([item])))
        thread.start()
        async for text in streamer:
            if text:
                yield text
        await asyncio.to_thread(thread.join)
        yield answers[0]

    async def is_ready(self):
        return True

    def accept(self):
        return nullcontext()


@pytest.fixture(scope="session")
def embedded():
    return load_tiny()


@pytest.fixture(scope="session")
def worker(embedded):
    return Worker(*embedded)


@pytest.fixture(scope="session")
def make_client(worker):
    """`make_client(backend, token=..., **settings)`: a client of the interface."""

    def make(backend=None, token=None, **settings):
        backend = backend or Local(worker)
        api = create_api(Settings(**settings), NAME, token, lambda: backend)
        return TestClient(api, raise_server_exceptions=False)

    return make


@pytest.fixture(scope="session")
def client(make_client):
    return make_client()
