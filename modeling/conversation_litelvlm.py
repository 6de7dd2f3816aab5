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
"""Conversations as the language model reads them: rendered by a chat template, as token ids and labels, in a batch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils.chat_template_utils import render_jinja_template

from ..configuration.configuration_litelvlm import check_choice
from .chat_litelvlm import SPLIT, added_tokens, protect

# What a chat template has around answers, for the labels
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_IGNORED = -100  # by the cross-entropy, as a label


def build_messages(questions: Sequence[str], answers: Sequence[str], num_images: int) -> list[dict[str, Any]]:
    """
    A conversation in the form that chat templates take; its images stand before the first question.

    Raises:
        ValueError: more than the last question is left open.
    """
    if len(answers) not in (len(questions), len(questions) - 1):
        raise ValueError(
            f"A conversation has {len(questions)} questions and {len(answers)} answers; give an answer to every "
            "question, or to all but the last. For several questions of one image that do not follow each other, "
            "pass the image alone with a list of texts."
        )
    messages: list[dict[str, Any]] = []
    for i, question in enumerate(questions):
        images = [{"type": "image"}] * num_images if i == 0 else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        if i < len(answers):
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answers[i]}]})
    return messages


def render_conversation(
    messages: Sequence[dict[str, Any]],
    tokenizer: Any,
    image_token: str,
    chat_template: str,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool = False,
    template_variables: Mapping[str, Any] | None = None,
) -> tuple[str, list[tuple[int, int]]]:
    """
    A conversation as one text, in which [`SPLIT`] keeps apart what a user has typed and must stay text; and the spans
    (start, end) of its answers, none where the template does not mark them.

    Args:
        add_generation_prompt (`bool`, *optional*): by default where the user spoke last.
        continue_final_message (`bool`): end within the last message, for the model to go on with it.
        template_variables (`dict`, *optional*): further ones that the template reads, besides the tokenizer's special
            tokens.

    Raises:
        ValueError: the template does not take these messages, or leaves out what the system says.
    """
    protected = []
    for message in messages:
        # Answers hold [SEG] rightly, but only the template may place an image
        tokens = added_tokens(tokenizer) if message["role"] == "user" else {image_token}
        # Templates such as LLaVA's write nothing for a content that is one string
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        protected.append(protect({**message, "content": parts}, tokens))
    if add_generation_prompt is None:
        add_generation_prompt = messages[-1]["role"] == "user" and not continue_final_message
    marks_answers = _GENERATION_BLOCK.search(chat_template) is not None and not continue_final_message
    try:
        rendered, spans = render_jinja_template(
            conversations=[protected],
            chat_template=chat_template,
            return_assistant_tokens_mask=marks_answers,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **{**tokenizer.special_tokens_map, **(template_variables or {})},
        )
    except Exception as error:  # Jinja's, which a template raises by itself too
        raise _refused(messages, str(error)) from error
    for part in (part for message in protected if message["role"] == "system" for part in message["content"]):
        if part.get("text", "").strip() not in rendered[0]:
            raise _refused(messages, f"it leaves out {part['text']!r:.80}")
    return rendered[0], spans[0] if marks_answers else []


def _refused(messages: Sequence[dict[str, Any]], reason: str) -> ValueError:
    return ValueError(
        f"The chat template does not take a conversation with the roles {', '.join(m['role'] for m in messages)}: "
        f"{reason.rstrip('.')}; write what the system says into the first message of the user, let user and assistant "
        "take turns, or give another `chat_template`."
    )


def encode_conversation(
    messages: Sequence[dict[str, Any]],
    tokenizer: Any,
    image_token: str,
    num_image_tokens: Sequence[int],
    chat_template: str,
    **rendering: Any,
) -> tuple[list[int], list[int]]:
    """
    Token ids and as many labels, -100 outside of answers. What stands around an image, or around a protected special
    token, is tokenised apart, as the published checkpoints were trained: joining the texts first would join their
    tokens.

    Args:
        num_image_tokens (`Sequence[int]`): placeholders of each image, in the order of the conversation.
        rendering: options of [`render_conversation`].

    Raises:
        ValueError: the template does not place every image.
    """
    rendered, spans = render_conversation(messages, tokenizer, image_token, chat_template, **rendering)
    if (number := rendered.count(image_token)) != len(num_image_tokens):
        raise ValueError(
            f"The chat template places {number} images of a conversation with {len(num_image_tokens)}; give another "
            "`chat_template`."
        )
    image_id, of_images = tokenizer.convert_tokens_to_ids(image_token), iter(num_image_tokens)
    ids: list[int] = []
    # PaliGemma's template writes the token itself, behind the image
    if tokenizer.bos_token_id is not None and not rendered.replace(image_token, "").startswith(tokenizer.bos_token):
        ids = [tokenizer.bos_token_id]
    labels = [_IGNORED] * len(ids)
    start = 0
    for piece in re.split(f"({re.escape(image_token)}|{SPLIT})", rendered):
        if piece == image_token:
            number = next(of_images)
            ids += [image_id] * number
            labels += [_IGNORED] * number
        elif piece and piece != SPLIT:
            tokens = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
            ids += tokens["input_ids"]
            for token, (low, high) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
                answered = any(start + low < end and begin < start + high for begin, end in spans)
                labels.append(token if answered else _IGNORED)
        start += len(piece)
    return ids, labels


def batch_conversations(
    encoded: Sequence[tuple[list[int], list[int]]],
    tokenizer: Any,
    image_token: str,
    with_labels: bool,
    with_assistant_masks: bool = False,
    *,
    padding: bool | str | None = True,
    truncation: bool | str | None = False,
    max_length: int | None = None,
    padding_side: str | None = None,
) -> dict[str, torch.Tensor]:
    """
    Conversations from [`encode_conversation`] as `input_ids`, `attention_mask` and, if asked for, `labels` and
    `assistant_masks` (1 in answers), int64 of shape `(B, L)`.

    Args:
        padding, truncation, max_length, padding_side: as tokenizers take them.

    Raises:
        ValueError: an option with a value that is not allowed, conversations that do not fit the options, answers
            that the chat template does not mark, or an image that would be cut.
    """
    check_choice("padding", padding, (True, False, "longest", "max_length", "do_not_pad", None))
    check_choice("truncation", truncation, (True, False, "longest_first", "only_first", "do_not_truncate", None))
    check_choice("padding_side", padding_side, ("left", "right", None))
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise ValueError(f"`max_length` is {max_length!r}; allowed are whole numbers of at least 1.")
    truncates, fills = truncation not in (False, "do_not_truncate", None), padding == "max_length"
    limit: int = tokenizer.model_max_length if max_length is None else max_length
    if limit > LARGE_INTEGER and (truncates or fills):
        name, value = ("truncation", truncation) if truncates else ("padding", padding)
        raise ValueError(f"`{name}` is {value!r}, but `max_length` is not given, and the tokenizer has none.")
    if with_labels and not all(any(label != _IGNORED for label in labels) for _, labels in encoded):
        raise ValueError(
            "The chat template does not say which tokens are the answer, so there are no labels to learn from. Put "
            "`{% generation %}` and `{% endgeneration %}` around the answer in it, or leave the last answer open."
        )
    if truncates:
        kept = slice(-limit, None) if tokenizer.truncation_side == "left" else slice(limit)
        for ids, _ in encoded:
            _check_images_stay(ids, kept, tokenizer.convert_tokens_to_ids(image_token), limit)
        encoded = [(ids[kept], labels[kept]) for ids, labels in encoded]

    lengths = sorted({len(ids) for ids, _ in encoded})
    if fills and lengths[-1] > limit:
        raise ValueError(
            f"A conversation has {lengths[-1]} tokens, but `max_length` is {limit}; give a larger one, or "
            "`truncation=True`."
        )
    if padding in (False, "do_not_pad", None) and len(lengths) > 1:
        raise ValueError(f"`padding` is {padding!r}, but the conversations have {lengths} tokens; allow padding.")
    padded = tokenizer.pad(
        {"input_ids": [ids for ids, _ in encoded]},
        # A tokenizer without a token for padding may still be used where there is nothing to pad
        padding="max_length" if fills else len(lengths) > 1,
        max_length=limit if fills else None,
        padding_side=padding_side,
        return_attention_mask=True,
        return_tensors="pt",
    )
    data = {name: padded[name] for name in ("input_ids", "attention_mask")}
    if not with_labels and not with_assistant_masks:
        return data
    labels = torch.full_like(data["input_ids"], _IGNORED)
    labels[data["attention_mask"].bool()] = torch.tensor([label for _, row in encoded for label in row])
    if with_labels:
        data["labels"] = labels
    if with_assistant_masks:
        data["assistant_masks"] = (labels != _IGNORED).long()
    return data


def _check_images_stay(ids: list[int], kept: slice, image_token_id: int, max_length: int) -> None:
    if ids[kept].count(image_token_id) < ids.count(image_token_id):
        first, end = ids.index(image_token_id), len(ids) - ids[::-1].index(image_token_id)
        raise ValueError(
            f"`max_length` is {max_length}, but the image's tokens end at {end} and begin at {first}, of {len(ids)}; "
            "allowed are lengths that leave the image whole."
        )


__all__ = ["batch_conversations", "build_messages", "encode_conversation", "render_conversation"]
