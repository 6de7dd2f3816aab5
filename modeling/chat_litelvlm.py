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
"""Texts of a conversation before they are tokenised: templates, turns, and user text that must stay text."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

# Conversation "llava_v1" with LISA's image prefix, as its checkpoints were trained
LLAVA_V1_CHAT_TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}"
    "{{ 'A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human\\'s questions. ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'system' and loop.first %}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% for part in parts %}{% if part['type'] == 'image' %}"
    "{{ '<im_start><image><im_end>\\n' }}{% endif %}{% endfor %}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT:' }}{% generation %}{{ ' ' }}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ '</s>' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('Roles are user and assistant, and system in the first message, not ' "
    "+ message['role'] + '.') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)

# PaliGemma knows no conversation: its processor writes the image, one text and a new line, then the answer, in two
# pieces. The last of these characters is `SPLIT`.
PALIGEMMA_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' and loop.first %}"
    "{% for part in parts %}{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}{{ bos_token }}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\\n' }}"
    "{% elif message['role'] == 'assistant' and loop.index == 2 %}{{ '\\ue000' }}{% generation %}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('PaliGemma reads one message of the user and answers it') }}{% endif %}"
    "{% endfor %}"
)

# Questions that LISA and GLaMM were trained with; the first is what a text is put into unless another is named
QUESTION_TEMPLATES = (
    "Can you segment {} in this image?",
    "Please segment {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)

# A character for private use: put into special tokens that a user has typed, and taken out by tokenising apart what
# stands on its two sides, so that they stay text
SPLIT = "\ue000"


def as_turns(name: str, value: Any, may_be_empty: bool = False) -> list[list[str]]:
    """`value` as a list of turns per conversation, with every text checked."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        raise ValueError(f"`{name}` is {value!r}; allowed are a text, a list of texts, or a list of lists of texts.")
    conversations = [list(turns) if isinstance(turns, (list, tuple)) else [turns] for turns in value]
    for turns in conversations:
        if not turns and not may_be_empty:
            raise ValueError(f"`{name}` holds a conversation without any text.")
        for turn in turns:
            if not isinstance(turn, str) or not turn.strip():
                raise ValueError(f"`{name}` holds {turn!r}; allowed are texts that are not empty.")
    return conversations


def check_single_question(conversations: Iterable[list[str]]) -> None:
    """Raises a `ValueError` if the roles of a conversation are none that PaliGemma reads, which knows no turns."""
    for roles in conversations:
        if "system" in roles:
            raise ValueError(
                "A conversation holds a message of the system, but PaliGemma reads one question and its answer; write "
                "what it says into the question."
            )
        if roles not in (["user"], ["user", "assistant"]):
            number = roles.count("user")
            held = f"{number} questions" if number == len(roles) else f"the roles {', '.join(roles)}"
            raise ValueError(
                f"A conversation has {held}, but PaliGemma reads one question and its answer; ask each by itself, as "
                "a list of texts with the image alone."
            )


def is_conversation(value: Any) -> bool:
    """Whether this is one conversation, a list of messages or an object that holds it, and not a list of those."""
    if hasattr(value, "messages"):
        return True
    return len(value) > 0 and not isinstance(value[0], (list, tuple)) and not hasattr(value[0], "messages")


def read_messages(messages: Any) -> list[dict[str, Any]]:
    """
    A conversation with the parts that Transformers' chat templates read: texts and images. OpenAI's `image_url`
    becomes an image, and message objects become dictionaries without what is None, as in Transformers.

    Raises:
        ValueError: a part of another type, which would be left out without a word.
    """
    read = []
    for message in getattr(messages, "messages", messages):
        message = _as_dictionary(message)
        content = message.get("content", "")
        parts = [] if isinstance(content, str) else [_as_dictionary(part) for part in content]
        for i, part in enumerate(parts):
            kind = part.get("type")
            if kind == "image_url":
                url = part["image_url"]
                parts[i] = {"type": "image", "url": url["url"] if isinstance(url, dict) else url}
            elif kind == "image" and "base64" in part:
                parts[i] = {"type": "image", "url": f"data:image/png;base64,{part['base64']}"}
            elif kind not in ("text", "image"):
                raise ValueError(
                    f"A message holds a part of type {kind!r}; allowed are 'text', 'image' and 'image_url'."
                )
        read.append(message | {"content": content if isinstance(content, str) else parts})
    return read


def _as_dictionary(value: Any) -> dict[str, Any]:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"A message, or a part of one, is a {type(value).__name__}; allowed are dictionaries, dataclasses and "
            "pydantic models."
        )
    return {name: item for name, item in value.items() if item is not None}


def message_text(message: dict[str, Any]) -> str:
    if isinstance(message["content"], str):
        return message["content"]
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def added_tokens(tokenizer: Any) -> set[str]:
    """Every special or added token of a tokenizer."""
    return {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)


def half_of_character(text: str) -> str | None:
    """What to say of a text that holds half of a surrogate pair, which no tokenizer reads; `None` of any other."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"holds {text[error.start]!r} at character {error.start}, which is half of a character; decode texts as "
            "what they are, such as UTF-8"
        )
    return None


def protect(text: Any, tokens: Iterable[str]) -> Any:
    """Text, or what holds texts, in which every one of these tokens is cut in two, so that none is recognised."""
    if isinstance(text, dict):
        return {name: protect(value, tokens) for name, value in text.items()}
    if isinstance(text, (list, tuple)):
        return [protect(value, tokens) for value in text]
    if not isinstance(text, str):
        return text
    if reason := half_of_character(text):
        raise ValueError(f"A text {reason}.")
    text = text.replace(SPLIT, "")
    alternatives = "|".join(re.escape(token) for token in tokens if len(token) > 1)
    if not alternatives:
        return text
    # Cut wherever a token starts, and not only in what one match covers: tokens may overlap. A tokenizer that ignores
    # case, such as CLIP's, recognises its tokens in any.
    return re.sub(f"(?={alternatives}).", lambda start: start[0] + SPLIT, text, flags=re.IGNORECASE | re.DOTALL)


__all__ = [
    "LLAVA_V1_CHAT_TEMPLATE",
    "PALIGEMMA_CHAT_TEMPLATE",
    "QUESTION_TEMPLATES",
    "SPLIT",
    "added_tokens",
    "as_turns",
    "check_single_question",
    "half_of_character",
    "is_conversation",
    "message_text",
    "protect",
    "read_messages",
]
