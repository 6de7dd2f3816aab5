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
The two ways of asking, and what is counted of one picture.

`generation`: every expression in a prompt of its own, answered freely, as users ask. `conversation`: up to three
expressions of a picture in one conversation whose answers are given (teacher-forced), so that one forward pass makes
all masks and one selection of visual tokens serves all three; this is how the reference was evaluated. The model need
not find [SEG] by itself there, but has to share its budget between the texts. Expressions without a target are left
out of conversations: the answer that is given names a mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..data.samples import BrokenAnnotation, Referring, ReferringImage
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation, LiteLVLMImageState
from ..modeling.processing_litelvlm import GUIDE_FORMS, LiteLVLMProcessor
from .metrics import count_pixels

ANSWER = "It is [SEG]."
"""The answer that is given in a conversation; checkpoints were trained with this among others."""
EXPRESSIONS_PER_CONVERSATION = 3
EXPRESSIONS_PER_PASS = 15
MAX_NEW_TOKENS = 32
PROTOCOLS = ("generation", "conversation")


@dataclass(frozen=True)
class Run:
    """
    One measurement of every picture.

    Args:
        protocol (`str`): one of [`PROTOCOLS`].
        method (`str`): a pruning method, `"none"` for all visual tokens.
        retained (`int`): visual tokens that the language model sees.
        settings (`tuple[tuple[str, Any], ...]`): fields of the configuration that differ, with their values.
        guide_form (`str`, *optional*): what CLIP reads of a text, if not what the processor says.
    """

    protocol: str
    method: str
    retained: int
    settings: tuple[tuple[str, Any], ...] = ()
    guide_form: str | None = None

    @property
    def variant(self) -> str:
        """Method and settings, as they are asked for: `"litelvlm:position_mode=original"`."""
        settings = [*self.settings, *([("guide_form", self.guide_form)] if self.guide_form else [])]
        return self.method + ":" * bool(settings) + ",".join(f"{name}={value}" for name, value in settings)

    @property
    def name(self) -> str:
        return f"{self.protocol}/{self.variant}/{self.retained}"


def parse_variant(text: str, config: LiteLVLMConfig) -> tuple[str, tuple[tuple[str, Any], ...], str | None]:
    """
    `"litelvlm:position_mode=original,guide_form=expression"` as a method, settings of the configuration, and the form
    of the guide's texts, which is a setting of the processor.

    Raises:
        ValueError: an unknown method or field, or a value that the field cannot take.
    """
    method, _, rest = text.partition(":")
    settings, guide_form = [], None
    for part in rest.split(",") if rest else []:
        name, sign, value = part.partition("=")
        if name == "guide_form" and value in GUIDE_FORMS:
            guide_form = value
            continue
        if (
            not sign
            or not isinstance(getattr(config, name, None), (str, int, type(None)))
            or not hasattr(config, name)
        ):
            raise ValueError(
                f"{part!r} in {text!r} is no FIELD=VALUE of the configuration, such as token_order=raster, nor a "
                f"guide_form ({', '.join(GUIDE_FORMS)})."
            )
        known: Any = None if value == "None" else int(value) if value.lstrip("-").isdigit() else value
        settings.append((name, known))
    config.resolve_budget(pruning_method=method)
    with configured(config, dict(settings)):
        return method, tuple(settings), guide_form


@contextmanager
def configured(config: LiteLVLMConfig, settings: dict[str, Any]) -> Iterator[None]:
    """Gives fields of a configuration other values for a while; a ValueError names one that cannot be."""
    before = {name: getattr(config, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(config, name, value)
        config.check()
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


# --- the two protocols -----------------------------------------------------------------------------------------------


def prompts(protocol: str, questions: Sequence[str]) -> dict[str, Any]:
    """What the processor is asked about one picture, of a number of questions."""
    if protocol == "generation":
        return {"text": list(questions)}
    step = EXPRESSIONS_PER_CONVERSATION
    turns = [list(questions[start : start + step]) for start in range(0, len(questions), step)]
    return {"text": turns, "answers": [[ANSWER] * len(asked) for asked in turns]}


def ask(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    inputs: Mapping[str, Any],
    state: LiteLVLMImageState,
    choice: Mapping[str, Any],
) -> list[torch.Tensor]:
    """
    Masks at the size of the picture, `(num_masks, H, W)`, bool, for each question: generated, or those of a
    conversation whose answers are given, one each.

    Args:
        inputs: the processor's, of [`prompts`].
        state: of the picture, which is not encoded again.
        choice: `pruning_method` and `num_retained_tokens`.
    """
    left_out = ("pixel_values", "sam_pixel_values", "image_sizes", "labels")
    prompt = {name: value for name, value in inputs.items() if name not in left_out}
    if "labels" in inputs:
        output = model(**prompt, **choice, image_state=state, logits_to_keep=1)
        return list(torch.cat(processor.post_process_masks(output, inputs)).split(1))
    output = model.segment(**prompt, **choice, image_state=state, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return processor.post_process_masks(output, inputs)


# --- one picture -----------------------------------------------------------------------------------------------------


def read_masks(
    entry: ReferringImage, skip_broken: bool
) -> tuple[Image.Image | None, list[tuple[Referring, np.ndarray | None]], list[str]]:
    """
    The picture, the expressions with their masks, and what is wrong with those left out.

    Raises:
        BrokenAnnotation: something is wrong, and it is not to be skipped.
    """
    sound, wrong = [], []
    try:
        image = entry.load_image()
    except BrokenAnnotation as error:
        if not skip_broken:
            raise
        return None, [], [str(error)] * len(entry.expressions)
    for expression in entry.expressions:
        try:
            mask = expression.load_mask()
            if not expression.text.strip():
                raise BrokenAnnotation(f"image {entry.id}: expression {expression.id} is empty.")
            if mask is not None and mask.shape != image.size[::-1]:
                raise BrokenAnnotation(
                    f"image {entry.id}: expression {expression.id} has a mask of shape {mask.shape}, but the picture "
                    f"is {image.height} high and {image.width} wide."
                )
            sound.append((expression, mask))
        except BrokenAnnotation as error:
            if not skip_broken:
                raise
            wrong.append(str(error))
    return image, sound, wrong


@torch.inference_mode()
def measure(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    entry: ReferringImage,
    runs: Sequence[Run],
    skip_broken: bool = False,
) -> dict[str, Any]:
    """
    Everything that is counted of one picture, as JSON can hold it. Pictures do not share a batch, so what is counted
    of one does not depend on others.

    Returns:
        `{"counts": {run: [[expression, *PixelCounts], ...]}, "broken": [message, ...]}`. Of several masks in one
        answer the first counts; an answer without any counts as an empty mask. Conversations count expressions with a
        target only.

    Raises:
        BrokenAnnotation: something cannot be read, and `skip_broken` is off.
    """
    image, asked, wrong = read_masks(entry, skip_broken)
    counts: dict[str, list[list[Any]]] = {run.name: [] for run in runs}
    with_target = [(expression, mask) for expression, mask in asked if mask is not None]
    parts = {"generation": list(_passes(asked)), "conversation": list(_passes(with_target))}
    # Pictures are prepared once for each protocol and form of the guide's texts; SAM sees one once, and CLIP once for
    # each method, as methods look at different parts of it
    inputs: dict[tuple[str, str], list[Any]] = {}
    states: dict[str, LiteLVLMImageState] = {}
    for run in (run for run in runs if parts[run.protocol]):
        form = run.guide_form or processor.guide_form
        if (run.protocol, form) not in inputs:
            forming = copy(processor)
            forming.guide_form = form
            inputs[run.protocol, form] = [
                forming(image, **prompts(run.protocol, [e.text for e, _ in part]), question_template=template)
                for template, part in parts[run.protocol]
            ]
        if run.method not in states:
            known = next(iter(states.values()), None)
            states[run.method] = _encode(model, inputs[run.protocol, form][0].to(model.device), run.method, known)
        choice: dict[str, Any] = {"pruning_method": run.method}
        choice |= {"num_retained_tokens": run.retained} if run.method != "none" else {}
        with configured(model.config, dict(run.settings)):
            for (_, part), prepared in zip(parts[run.protocol], inputs[run.protocol, form], strict=True):
                answers = ask(model, processor, prepared.to(model.device), states[run.method], choice)
                for (expression, expected), masks in zip(part, answers, strict=True):
                    size = masks.shape[-2:]
                    predicted = masks[0].cpu().numpy() if len(masks) else np.zeros(size, dtype=bool)
                    counts[run.name].append([expression.id, *count_pixels(predicted, expected)])
    return {"counts": counts, "broken": wrong}


def _passes(
    asked: Sequence[tuple[Referring, np.ndarray | None]],
) -> Iterator[tuple[str, list[tuple[Referring, np.ndarray | None]]]]:
    """Template and expressions of each pass: as many as fit, all of one template."""
    for template, group in groupby(asked, key=lambda pair: pair[0].question_template):
        same = list(group)
        for start in range(0, len(same), EXPRESSIONS_PER_PASS):
            yield template, same[start : start + EXPRESSIONS_PER_PASS]


def _encode(
    model: LiteLVLMForSegmentation, inputs: Mapping[str, Any], method: str, known: LiteLVLMImageState | None
) -> LiteLVLMImageState:
    """The picture for a method; SAM's part is taken from a known state."""
    clip = {name: inputs[name] for name in ("pixel_values", "image_sizes") if name in inputs}
    if known is None:
        return model.encode_image(**clip, sam_pixel_values=inputs["sam_pixel_values"], pruning_method=method)
    state = model.model.encode_image(**clip, pruning_method=method)
    return replace(state, sam_image_embeddings=known.sam_image_embeddings)


__all__ = ["ANSWER", "PROTOCOLS", "Run", "ask", "configured", "measure", "parse_variant", "prompts", "read_masks"]
