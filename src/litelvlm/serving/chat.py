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
"""OpenAI's chat completions: what they ask, and their answers, with masks beside OpenAI's fields."""

from collections.abc import AsyncIterator
from typing import Any

from .schemas import ChatRequest, ImagePart
from .settings import MAX_IMAGES, RefusedError

DEFAULT_NEW_TOKENS = 64
MAX_CHARACTERS = 16_000
"""Of all messages together; more than the language models of LLaVA's family have positions for."""


def read_chat(asked: ChatRequest) -> tuple[list[str], tuple[dict[str, Any], ...], dict[str, Any]]:
    """
    Returns:
        The images as they were sent; the messages as chat templates take them; and the options.

    Raises:
        RefusedError: no image or too many, too long, or the user has not spoken last.
    """
    if asked.messages[-1].role != "user":
        raise RefusedError(422, "The last message is not the user's; there is nothing to answer.")
    messages, images = [], []
    for message in asked.messages:
        content: Any = message.content
        if not isinstance(content, str):
            images += [(message.role, part.image_url.url) for part in content if isinstance(part, ImagePart)]
            content = [
                {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
                for part in content
            ]
        messages.append({"role": message.role, "content": content})
    if others := {role for role, _ in images} - {"user"}:
        raise RefusedError(422, f"A message of the {min(others)} holds an image; only those of the user may.")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise RefusedError(422, f"The messages hold {len(images)} images; allowed are 1 to {MAX_IMAGES}.")
    if (length := sum(_length(message["content"]) for message in messages)) > MAX_CHARACTERS:
        raise RefusedError(422, f"The messages have {length} characters; allowed are {MAX_CHARACTERS} in all.")
    options = asked.model_dump(include={"num_retained_tokens", "pruning_method"})
    options["max_new_tokens"] = asked.max_completion_tokens or asked.max_tokens or DEFAULT_NEW_TOKENS
    return [url for _, url in images], tuple(messages), options


def chat_response(head: dict[str, Any], answered: dict[str, Any], max_new_tokens: int) -> dict[str, Any]:
    """The whole answer at once."""
    (result,) = answered["results"]
    message = {"role": "assistant", "content": result["answer"], "masks": result["masks"]}
    choice = {"index": 0, "message": message, "finish_reason": _why(result, max_new_tokens)}
    return head | {"object": "chat.completion", "choices": [choice], "usage": _usage(answered)}


async def stream_chunks(
    head: dict[str, Any], first: Any, rest: AsyncIterator[Any], max_new_tokens: int, with_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """The answer's text in pieces; the masks, which are decoded once it is whole, come with the last one."""
    head = head | {"object": "chat.completion.chunk"}
    delta: dict[str, Any] = {"role": "assistant"}
    piece = first
    # Tokenizers of Llama's kind begin an answer with a space, which is no part of it
    while isinstance(piece, str):
        piece = piece.lstrip() if delta else piece
        if not piece:
            piece = await anext(rest)
            continue
        yield head | {"choices": [{"index": 0, "delta": delta | {"content": piece}, "finish_reason": None}]}
        delta, piece = {}, await anext(rest)
    (result,) = piece["results"]
    delta = delta | {"masks": result["masks"]}
    yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": _why(result, max_new_tokens)}]}
    if with_usage:
        yield head | {"choices": [], "usage": _usage(piece)}


def _length(content: str | list[dict[str, str]]) -> int:
    return len(content) if isinstance(content, str) else sum(len(part.get("text", "")) for part in content)


def _why(result: dict[str, Any], max_new_tokens: int) -> str:
    return "length" if result["num_new_tokens"] >= max_new_tokens and not result["is_complete"] else "stop"


def _usage(answered: dict[str, Any]) -> dict[str, int]:
    prompt, new = answered["num_prompt_tokens"], answered["results"][0]["num_new_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


__all__ = ["chat_response", "read_chat", "stream_chunks"]
