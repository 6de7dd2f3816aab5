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
"""Conversations about scenes as batches, with what each of their tokens means in the image."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from loop import Collate
from patch_dropout import random_dropout
from pointing import POINTED
from recipe import ANSWERS, ANSWERS_WITHOUT, IMAGE_SIZE, NUM_VISUAL_TOKENS
from samples import clip_pixels, coverage, sam_pixels
from torch import nn

from litelvlm.data.refshapes import ATTRIBUTES, COLOURS, SHAPES, SIZES, TEXTURES, RefObject, Sample, matches
from litelvlm.modeling.chat_litelvlm import QUESTION_TEMPLATES
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

# Of all prompts, as the model is compiled: tokens of six questions with their answers, seldom of fewer
LENGTH = 480
MENTION = re.compile(
    r"\b"
    + "".join(f"(?:({'|'.join(known)}) )?" for known in (SIZES, TEXTURES, COLOURS))
    + rf"({'|'.join((*SHAPES, 'object'))})(?:e?s)?\b"
)
TEXT_INPUTS = ("input_ids", "attention_mask", "labels", "guide_input_ids", "guide_attention_mask")
SIZE_INPUTS = ("original_sizes", "reshaped_input_sizes")


def answered(sample: Sample) -> list[int]:
    """The expressions that are answered with a mask: those that name something."""
    return [i for i, expression in enumerate(sample.expressions) if expression.targets]


def conversations(samples: list[Sample], rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Questions and answers of each sample in random forms; what is not there is answered without [SEG]."""
    questions = [[str(rng.choice(QUESTION_TEMPLATES)).format(e.text) for e in s.expressions] for s in samples]
    forms = [[ANSWERS if e.targets else ANSWERS_WITHOUT for e in s.expressions] for s in samples]
    return questions, [[str(rng.choice(known)) for known in of_sample] for of_sample in forms]


def mentions(text: str, objects: tuple[RefObject, ...]) -> list[tuple[int, list[int]]]:
    """Where each noun phrase of an expression ends, in characters, and the objects that it fits by itself."""
    found = []
    for match in MENTION.finditer(text):
        values = dict(zip(ATTRIBUTES, match.groups(), strict=True))
        values = {name: value for name, value in values.items() if value not in (None, "object")}
        found.append((match.end(), [i for i, thing in enumerate(objects) if matches(thing, values)]))
    return found


def find(ids: list[int], part: list[int], start: int) -> int:
    """The index at which a part begins in a list of ids, at `start` or behind it."""
    for i in range(start, len(ids) - len(part) + 1):
        if ids[i] == part[0] and ids[i : i + len(part)] == part:
            return i
    raise ValueError(f"{part} is not in {ids[start:]}")


class Pointed:
    """Collects tokens, and for each the distribution over the patches that it means; the last one is "nowhere"."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[tuple[int, int]]] = {name: [] for name in POINTED}
        self.patches: dict[str, list[torch.Tensor]] = {name: [] for name in POINTED}

    def add(self, name: str, sample: int, position: int, patches: torch.Tensor) -> None:
        self.tokens[name].append((sample, position))
        self.patches[name].append(patches)

    def as_inputs(self) -> dict[str, torch.Tensor]:
        """Of each name `{name}_tokens`, `(R, 2)` of sample and position, and `{name}_patches`, `(R, N + 1)`."""
        tokens = {f"{name}_tokens": torch.tensor(found) for name, found in self.tokens.items()}
        return tokens | {f"{name}_patches": torch.stack(found) for name, found in self.patches.items()}


def lvlm_collate(processor: LiteLVLMProcessor, with_dropout: bool = False) -> Collate:
    tokenizer = processor.tokenizer
    image_token_id, seg_token_id = tokenizer.convert_tokens_to_ids([processor.image_token, "[SEG]"])
    nowhere = torch.eye(NUM_VISUAL_TOKENS + 1)[-1]

    def tokens(text: str) -> list[int]:
        return tokenizer(" " + text, add_special_tokens=False)["input_ids"]

    def point(pointed: Pointed, number: int, sample: Sample, ids: list[int]) -> None:
        """Adds the tokens of one sample: ends of noun phrases, ends of expressions, and what follows them."""
        of_expressions = coverage(sample.masks)
        at = ids.index(image_token_id) + NUM_VISUAL_TOKENS
        for i, expression in enumerate(sample.expressions):
            part = tokens(expression.text)
            at = find(ids, part, at)
            for end, fitting in mentions(expression.text, sample.objects):
                mask = sample.object_masks[fitting].any(axis=0, keepdims=True)
                patches = nn.functional.pad(coverage(mask)[0], (0, 1)) if fitting else nowhere
                pointed.add("mention", number, at + len(tokens(expression.text[:end])) - 1, patches)
            at += len(part)
            target = nn.functional.pad(of_expressions[i], (0, 1)) if expression.targets else nowhere
            pointed.add("resolved", number, at - 1, target)
            # From there on to the token that predicts [SEG], or to the answer that there is none
            last = ids.index(seg_token_id, at) if expression.targets else at + 4
            for position in range(at, last):
                pointed.add("answer", number, position, target)

    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        placeholder = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        inputs = processor(
            text=questions,
            answers=answers,
            images=[placeholder] * len(samples),
            question_template="{}",
            return_tensors="pt",
        )
        too_long = inputs["attention_mask"].sum(-1) > LENGTH
        if too_long.any():
            shorter = [
                replace(s, expressions=s.expressions[:-1]) if cut else s
                for s, cut in zip(samples, too_long.tolist(), strict=True)
            ]
            return collate(shorter, rng)
        missing = LENGTH - inputs["input_ids"].shape[1]
        for name, filler in (("input_ids", tokenizer.pad_token_id), ("attention_mask", 0), ("labels", -100)):
            inputs[name] = nn.functional.pad(inputs[name], (missing, 0), value=filler)
        pointed = Pointed()
        for number, (sample, ids) in enumerate(zip(samples, inputs["input_ids"].tolist(), strict=True)):
            point(pointed, number, sample, ids)
        return {
            **{name: inputs[name] for name in (*TEXT_INPUTS, *SIZE_INPUTS)},
            "pixel_values": clip_pixels(samples),
            "sam_pixel_values": sam_pixels(samples),
            "mask_labels": [torch.from_numpy(s.masks[answered(s)]).float() for s in samples],
            "seg_patches": torch.cat([coverage(s.masks)[answered(s)] for s in samples]),
            **pointed.as_inputs(),
            **(random_dropout(rng, len(samples)) if with_dropout else {}),
        }

    return collate
