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
"""What the gateway makes of replicas that are lost or full, without Ray's processes."""

import asyncio

import pytest

pytest.importorskip("ray.serve")

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from litelvlm.serving import app
from litelvlm.serving.settings import RefusedError
from litelvlm.serving.worker import Question

LOST = (ActorDiedError(), ActorUnavailableError("lost", b"0" * 16))


class Response:
    """One of Ray Serve's: awaited, or iterated over."""

    def __init__(self, outcomes):
        self.outcomes, self.is_cancelled = outcomes, False

    def __await__(self):
        if isinstance(self.outcomes[0], Exception):
            raise self.outcomes[0]
        return self.outcomes[0]
        yield

    async def __aiter__(self):
        for outcome in self.outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome

    def cancel(self):
        self.is_cancelled = True


class Handle:
    """Of a deployment: gives these responses one after the other."""

    def __init__(self, *responses):
        self.responses = [Response(outcomes) for outcomes in responses]
        self.answer = self.stream = self
        self.num_asked = 0

    def options(self, **_):
        return self

    def remote(self, question):
        self.num_asked += 1
        return self.responses[self.num_asked - 1]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(app, "WAITS", (0.0, 0.0))


def ask(handle):
    return asyncio.run(app.Gateway(handle).answer(Question(b"", ("x",))))


def stream(handle):
    async def collect():
        return [piece async for piece in app.Gateway(handle).stream(Question(b""))]

    return asyncio.run(collect())


def refusal(status):
    cause = RefusedError(status, "why")
    return RayTaskError("answer", "the traceback", cause)


@pytest.mark.parametrize("lost", LOST, ids=lambda error: type(error).__name__)
def test_question_whose_replica_is_lost_is_asked_again(lost):
    assert ask(Handle([lost], [lost], [{"results": []}])) == {"results": []}
    assert stream(Handle([lost], ["It", {}])) == ["It", {}]
    for answer in (ask, stream):
        handle = Handle([lost], [lost], [lost], [{}])
        with pytest.raises(RefusedError) as raised:
            answer(handle)
        assert raised.value.status == 503 and handle.num_asked == 3


def test_stream_that_has_begun_is_not_begun_again():
    handle = Handle(["It", LOST[0]], ["It", {}])
    with pytest.raises(RefusedError) as raised:
        stream(handle)
    assert raised.value.status == 503 and handle.num_asked == 1 and handle.responses[0].is_cancelled


@pytest.mark.parametrize(
    ("error", "status"), [(BackPressureError(64, 64), 429), (refusal(413), 413), (refusal(422), 422)]
)
def test_refusals_of_the_queue_and_of_the_model_are_handed_on_and_not_asked_again(error, status):
    for answer in (ask, stream):
        handle = Handle([error], [{}])
        with pytest.raises(RefusedError) as raised:
            answer(handle)
        assert raised.value.status == status and handle.num_asked == 1


def test_failure_is_handed_on():
    with pytest.raises(RayTaskError):
        ask(Handle([RayTaskError("answer", "the traceback", KeyError("x"))]))


def test_gateway_that_drains_waits_for_what_it_has_accepted_and_takes_no_more():
    async def drained():
        gateway = app.Gateway(Handle())
        with gateway.accept():
            draining = asyncio.create_task(gateway.drain())
            await asyncio.sleep(0.1)
            assert not draining.done()
            with pytest.raises(RefusedError, match="being stopped"):
                await gateway.is_ready()
            with pytest.raises(RefusedError, match="being stopped"), gateway.accept():
                pass
        await asyncio.wait_for(draining, 5)

    asyncio.run(drained())
