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
"""The HTTP interface: what is asked and answered under each path, whoever answers behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import uuid4

import torch
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from .. import __version__
from ..data.masks import decode_segmentation
from ..hub_cards.handler import png
from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES
from .chat import chat_response, read_chat, stream_chunks
from .gate import Gate, describe_error
from .images import load_image
from .schemas import (
    ChatRequest,
    ChatResponse,
    ErrorResponse,
    Models,
    SegmentRequest,
    SegmentResponse,
    State,
)
from .settings import MAX_TEXTS, RefusedError, Settings
from .worker import Question

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A body that cannot be read"},
    401: {"description": "The token is missing or wrong"},
    404: {"description": "No such model"},
    408: {"description": "The request did not arrive in time"},
    413: {"description": "More bytes or pixels than are allowed"},
    422: {"description": "What is asked for cannot be done"},
    429: {"description": "Too many requests wait already"},
    503: {"description": "Not ready"},
    504: {"description": "The answer takes too long"},
}


class Backend(Protocol):
    """Who answers."""

    async def answer(self, question: Question) -> dict[str, Any]:
        """As [`Worker.answer`] for one question. Raises RefusedError."""

    def stream(self, question: Question) -> AsyncIterator[str | dict[str, Any]]:
        """The answer's text in pieces, and at last what `answer` gives."""

    async def is_ready(self) -> bool:
        """Whether there is a model to answer. Raises RefusedError where there will be none any more."""

    def accept(self) -> AbstractContextManager[None]:
        """Around a request from its first byte to the last of its answer. Raises RefusedError where none is taken."""


def create_api(settings: Settings, model_name: str, token: str | None, find_backend: Callable[[], Backend]) -> FastAPI:
    """
    Args:
        settings ([`Settings`]): with the limits.
        model_name (`str`): as clients name the model.
        token (`str`, *optional*): that requests must bear.
        find_backend: gives who answers, once there are requests.
    """
    registry = CollectorRegistry()
    api = FastAPI(title="LiteLVLM", version=__version__, docs_url=None, redoc_url=None)
    paths = ["/v1/segment", "/v1/chat/completions", "/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json"]
    api.add_middleware(
        Gate,
        token=token,
        max_seconds=settings.max_seconds,
        accept=lambda: find_backend().accept(),
        registry=registry,
        paths=paths,
    )
    _describe_errors(api)

    def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
        return {status: _ERRORS[status] | {"model": ErrorResponse} for status in statuses}

    @api.get("/healthz", responses=errors(408))
    async def healthz() -> State:
        """Whether this process lives."""
        return State(status="alive")

    @api.get("/readyz", responses=errors(408, 503))
    async def readyz() -> State:
        """Whether a model is loaded and answers."""
        if not await find_backend().is_ready():
            raise RefusedError(503, "No replica of the model is running yet.")
        return State(status="ready")

    @api.get("/metrics", response_class=Response, responses=errors(401, 408))
    async def metrics() -> Response:
        """Counts and seconds of this process, as Prometheus reads them."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @api.get("/v1/models", responses=errors(401, 408))
    async def models() -> Models:
        """The one model that is served."""
        return Models.model_validate({"data": [{"id": model_name}]})

    @api.post(
        "/v1/segment",
        response_model=SegmentResponse,
        responses=errors(400, 401, 408, 413, 422, 429, 503, 504),
        openapi_extra={"requestBody": _describe_bodies()},
    )
    async def segment(request: Request) -> Any:
        """Masks of what each text refers to in an image."""
        started = time.perf_counter()
        asked, source = await _read_segment(request)
        image = source if isinstance(source, bytes) else await load_image(source, settings.allowed_hosts)
        options = asked.model_dump(include={"answer", "num_retained_tokens", "pruning_method"})
        if asked.answer is None:
            options["max_new_tokens"] = asked.max_new_tokens
        question = Question(image, tuple(asked.texts), options=options)
        answered = (await _in_time(find_backend().answer(question), settings.max_seconds))["results"]
        if asked.mask_format == "png":
            await asyncio.to_thread(_draw, answered)
        return {
            "results": answered,
            "tokens": max(result["num_retained_tokens"] for result in answered),
            "milliseconds": 1000 * (time.perf_counter() - started),
        }

    @api.post(
        "/v1/chat/completions",
        response_model=ChatResponse,
        responses=errors(400, 401, 404, 408, 413, 422, 429, 503, 504) | {200: {"content": {"text/event-stream": {}}}},
    )
    async def chat_completions(asked: ChatRequest) -> Any:
        """OpenAI's form. Beside its fields, `message.masks` holds a mask for each [SEG] of the answer."""
        if asked.model != model_name:
            raise RefusedError(404, f"There is no model {asked.model[:80]!r} here, only {model_name!r}.")
        sources, messages, options = read_chat(asked)
        image, *further = await asyncio.gather(*(load_image(source, settings.allowed_hosts) for source in sources))
        question = Question(image, messages=messages, options=options, further_images=tuple(further))
        head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model_name}
        if not asked.stream:
            answered = await _in_time(find_backend().answer(question), settings.max_seconds)
            return chat_response(head, answered, options["max_new_tokens"])
        pieces = _pieces_in_time(find_backend().stream(question), settings.max_seconds)
        first = await anext(pieces)  # what is refused has a status of its own until then
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = stream_chunks(head, first, pieces, options["max_new_tokens"], with_usage)
        return StreamingResponse(_events(chunks), media_type="text/event-stream")

    return api


async def _read_segment(request: Request) -> tuple[SegmentRequest, str | bytes]:
    """What is asked, and the image: of a form its file."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        try:
            asked = SegmentRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        return asked, asked.image
    # Fields are texts and numbers; a file may be the image alone
    async with request.form(max_files=1, max_fields=MAX_TEXTS + 8, max_part_size=UNTRUSTED_BYTES * 4 // 3 + 4) as form:
        fields: dict[str, Any] = {name: form.getlist(name) for name in form}
        image = fields.get("image", [None])[0]
        content = await image.read() if isinstance(image, UploadFile) else None
        if repeated := [name for name, values in fields.items() if len(values) > 1 and name != "texts"]:
            raise RefusedError(422, f"`{repeated[0][:80]}` is given several times; only `texts` may be.")
        fields = {name: values if name == "texts" else values[0] for name, values in fields.items()}
        if content is not None:
            fields["image"] = "a file"
        try:
            asked = SegmentRequest.model_validate(fields, strict=False)  # numbers are texts here
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
    if content is not None and len(content) > UNTRUSTED_BYTES:
        raise RefusedError(413, f"The image has more than {UNTRUSTED_BYTES // 2**20} MiB, which is the limit.")
    return asked, asked.image if content is None else content


def _describe_bodies() -> dict[str, Any]:
    schema = SegmentRequest.model_json_schema()
    file = {"type": "string", "format": "binary"}
    form = schema | {"properties": schema["properties"] | {"image": file}}
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
    }


async def _in_time(answer: Any, seconds: float) -> Any:
    try:
        return await asyncio.wait_for(answer, seconds)
    except asyncio.TimeoutError:
        raise _too_slow(seconds) from None


async def _pieces_in_time(pieces: AsyncIterator[Any], seconds: float) -> AsyncIterator[Any]:
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                piece = await asyncio.wait_for(anext(pieces), max(deadline - time.monotonic(), 1e-3))
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError:
                raise _too_slow(seconds) from None
            yield piece
    finally:
        if hasattr(pieces, "aclose"):
            await pieces.aclose()


def _too_slow(seconds: float) -> RefusedError:
    return RefusedError(504, f"The answer takes longer than {seconds:g} seconds; ask for fewer texts or new tokens.")


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Server-sent events; once they have begun, an error is one of them."""
    try:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"
    except RefusedError as refused:
        yield f"data: {json.dumps(describe_error(refused.status, refused.message))}\n\n"


def _draw(results: list[dict[str, Any]]) -> None:
    """Puts PNGs in the place of run lengths."""
    for result in results:
        for mask in result["masks"]:
            mask["segmentation"] = png(torch.from_numpy(decode_segmentation(mask["segmentation"], *result["size"])))


def _describe_errors(api: FastAPI) -> None:
    """Every error in OpenAI's form. What was sent is not sent back: it may be large, or no text at all."""

    @api.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status in (429, 503) else None
        return JSONResponse(describe_error(error.status, error.message), error.status, headers)

    @api.exception_handler(HTTPException)
    async def failed(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(describe_error(error.status_code, str(error.detail)), error.status_code, error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(describe_error(422, "; ".join(map(_say, error.errors()[:3]))), 422)

    @api.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(describe_error(500, "The server failed; what it said is in its log."), 500)


def _say(error: Any) -> str:
    """A finding of pydantic's, such as: `texts[0]`: it is empty."""
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"[:80] for part in error["loc"] if part != "body"
    )
    # Names of fields are the stranger's too
    place = place.lstrip(".").encode(errors="replace").decode()
    return f"`{place or 'the request'}`: {error['msg'].removeprefix('Value error, ')}"


__all__ = ["Backend", "create_api"]
