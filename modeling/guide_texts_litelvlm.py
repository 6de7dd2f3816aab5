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
"""Texts as the CLIP guide reads them: one sentence or several for each text, as token ids."""

from typing import Any

import torch

from ..configuration.configuration_litelvlm import check_choice
from .chat_litelvlm import QUESTION_TEMPLATES, SPLIT, added_tokens, protect

GUIDE_FORMS = ("question", "expression", "templates")


def guide_sentences(turns: list[list[str]], guide_form: str, question_template: str) -> list[list[list[str]]]:
    """
    What CLIP reads of each text of each conversation: one sentence, or several.

    Raises:
        ValueError: an unknown form.
    """
    check_choice("guide_form", guide_form, GUIDE_FORMS)
    forms = {"question": (question_template,), "expression": ("{}",), "templates": QUESTION_TEMPLATES}
    return [[[form.replace("{}", text) for form in forms[guide_form]] for text in texts] for texts in turns]


def encode_guide_texts(
    guides: list[list[list[str]]], tokenizer: Any, guide_length: int | None = None
) -> dict[str, torch.Tensor]:
    """
    Sentences of T texts of B conversations as `guide_input_ids` and `guide_attention_mask`, int64 of shape `(B, T,
    G)`, or `(B, T, sentences, G)` where a text has several; conversations with fewer texts are masked. G is that of
    the longest, or `guide_length`.
    """
    encoded = [
        [[encode_guide_text(text, tokenizer, guide_length) for text in sentences] for sentences in texts]
        for texts in guides
    ]
    length = guide_length or max(len(ids) for texts in encoded for sentences in texts for ids in sentences)
    shape = (len(encoded), max(map(len, encoded)), len(encoded[0][0]), length)
    input_ids = torch.full(shape, tokenizer.pad_token_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    for i, texts in enumerate(encoded):
        for j, sentences in enumerate(texts):
            for k, ids in enumerate(sentences):
                input_ids[i, j, k, : len(ids)] = torch.tensor(ids)
                attention_mask[i, j, k, : len(ids)] = 1
    data = {"guide_input_ids": input_ids, "guide_attention_mask": attention_mask}
    return {name: value.squeeze(2) for name, value in data.items()}


def encode_guide_text(text: str, tokenizer: Any, guide_length: int | None = None) -> list[int]:
    """
    Token ids of one text, cut to the tokenizer's length with the end token kept. A text for SigLIP, which has a
    `guide_length`, is in lower case: not every tokenizer of SigLIP 2 makes it so.
    """
    text = text if guide_length is None else text.lower()
    # SigLIP 2 has Gemma's tokenizer, whose beginning token exists but was not trained with
    has_first = tokenizer.bos_token_id is not None and (
        guide_length is None or tokenizer.bos_token_id in tokenizer("")["input_ids"]
    )
    first = [tokenizer.bos_token_id] if has_first else []
    pieces = protect(text, added_tokens(tokenizer)).split(SPLIT)
    ids = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    return [*first, *ids[: (guide_length or tokenizer.model_max_length) - len(first) - 1], tokenizer.eos_token_id]


__all__ = ["GUIDE_FORMS", "encode_guide_text", "encode_guide_texts", "guide_sentences"]
