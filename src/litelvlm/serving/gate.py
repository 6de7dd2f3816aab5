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
"""What every request passes before FastAPI reads it: the token, the limit of bytes, and the count for Prometheus."""

import asyncio
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import JSONResponse

from .settings import MAX_BODY_BYTES, RefusedError

OPEN_PATHS = ("/healthz", "/readyz")
"""Answered without a token: who asks are machines that watch the service."""

_ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def describe_error(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": status, "param": None}}


def read_token(content: str) -> str:
    """
    The token that a file, or a variable, holds.

    Raises:
        ValueError: there is none, or one that no header can hold.
    """
    token = content.strip()
    if not re.fullmatch(r"[\x21-\x7e]{8,}", token):
        raise ValueError("The token must have 8 characters or more, of ASCII and without spaces.")
    return token


class Gate:
    """
    ASGI middleware. A body is read whole here, within bytes and seconds, before anything is made of it.

    Args:
        app: the ASGI application behind it.
        token (`str`, *optional*): that requests must bear.
        max_seconds (`float`): for the body to arrive.
        accept: what is around each request; it raises RefusedError where none is taken.
        registry: where counts and seconds go.
        paths: that are counted by their names; others are counted as one.
    """

    def __init__(
        self,
        app: Any,
        token: str | None,
        max_seconds: float,
        accept: Callable[[], AbstractContextManager[None]],
        registry: CollectorRegistry,
        paths: list[str],
    ):
        self.app, self.max_seconds, self.accept, self.paths = app, max_seconds, accept, paths
        self.token = None if token is None else f"bearer {token}".encode()
        self.requests = Counter("litelvlm_requests", "Answers, by status", ["path", "status"], registry=registry)
        self.seconds = Histogram("litelvlm_request_seconds", "From the first byte", ["path"], registry=registry)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = perf_counter(), 500

        async def counting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with nullcontext() if scope["path"] in OPEN_PATHS else self.accept():
                await self._pass(scope, receive, counting)
        except RefusedError as refused:
            await _refuse(counting, refused)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.requests.labels(path, status).inc()
            self.seconds.labels(path).observe(perf_counter() - started)

    async def _pass(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        self._check_token(scope["path"], headers.get(b"authorization", b""))
        try:
            body = await asyncio.wait_for(_read(receive, headers), self.max_seconds)
        except asyncio.TimeoutError:
            raise RefusedError(408, f"The request did not arrive within {self.max_seconds:g} seconds.") from None
        if body is not None:
            await self.app(scope, _Replay(body, receive), send)

    def _check_token(self, path: str, given: bytes) -> None:
        if self.token is None or path in OPEN_PATHS:
            return
        scheme, _, token = given.partition(b" ")
        if not secrets.compare_digest(scheme.lower() + b" " + token, self.token):
            raise RefusedError(401, "The token is missing or wrong; send the header `Authorization: Bearer TOKEN`.")


async def _read(receive: Any, headers: dict[bytes, bytes]) -> bytes | None:
    """The body; `None` where the client has gone."""
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(body)


def _too_large() -> RefusedError:
    return RefusedError(413, f"The request has more than {MAX_BODY_BYTES} bytes, which is the limit.")


class _Replay:
    """Hands a body out again, and then what comes after it."""

    def __init__(self, body: bytes, receive: Any):
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> Any:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _refuse(send: Any, refused: RefusedError) -> None:
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
    response = JSONResponse(describe_error(refused.status, refused.message), refused.status, headers)
    await response({"type": "http"}, _Replay(b"", None), send)


__all__ = ["OPEN_PATHS", "Gate", "describe_error", "read_token"]
