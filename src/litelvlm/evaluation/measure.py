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
"""What is counted of one image, for all runs at once."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.samples import BrokenAnnotation, Referring, ReferringImage
from ..hub import public_message
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation, LiteLVLMImageState
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from .fingerprints import fingerprint_of_content
from .metrics import count_pixels
from .protocol import ask, prompts
from .runs import Run, configured

EXPRESSIONS_PER_PASS = 15


def read_masks(
    entry: ReferringImage, skip_broken: bool
) -> tuple[Image.Image | None, list[tuple[Referring, np.ndarray | None]], list[str]]:
    """
    Reads an image and its masks.

    Returns:
        The image, the expressions with their masks, and a message for each expression that is left out, without the
        paths of this machine: reports hold it.

    Raises:
        BrokenAnnotation: something is wrong, and it is not to be skipped.
    """
    sound, wrong = [], []
    try:
        image = entry.load_image()
    except BrokenAnnotation as error:
        if not skip_broken:
            raise
        return None, [], [public_message(str(error))] * len(entry.expressions)
    for expression in entry.expressions:
        try:
            mask = expression.load_mask()
            if not expression.text.strip():
                raise BrokenAnnotation(f"image {entry.id}: expression {expression.id} is empty.")
            if mask is not None and mask.shape != image.size[::-1]:
                raise BrokenAnnotation(
                    f"image {entry.id}: expression {expression.id} has a mask of shape {mask.shape}, but the image "
                    f"is {image.height} high and {image.width} wide."
                )
            sound.append((expression, mask))
        except BrokenAnnotation as error:
            if not skip_broken:
                raise
            wrong.append(public_message(str(error)))
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
    Everything that is counted of one image, as JSON can hold it. Images do not share a batch, so what is counted of
    one does not depend on others.

    Returns:
        `{"counts": {run: [[expression, *PixelCounts, kept], ...]}, "broken": [message, ...], "content": hash}`, where
        `kept` is the number of visual tokens. Of several masks in one answer the first counts; an answer without any
        counts as an empty mask. Conversations count expressions with a target only. The hash is that of the image and
        the masks.

    Raises:
        BrokenAnnotation: something cannot be read, and `skip_broken` is off.
    """
    image, asked, wrong = read_masks(entry, skip_broken)
    counts: dict[str, list[list[Any]]] = {run.name: [] for run in runs}
    with_target = [(expression, mask) for expression, mask in asked if mask is not None]
    parts = {"generation": list(_passes(asked)), "conversation": list(_passes(with_target))}
    # Inputs are the same for all runs of a protocol and a form of the guide's texts. SAM sees the image once, and CLIP
    # once for each method, as methods look at different parts of it.
    inputs: dict[tuple[str, str], list[Any]] = {}
    states: dict[str, LiteLVLMImageState] = {}
    for run in runs:
        if not parts[run.protocol]:
            continue
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
        for (_, part), prepared in zip(parts[run.protocol], inputs[run.protocol, form], strict=True):
            with configured(model.config, dict(run.settings)):
                answers, kept = ask(model, processor, prepared.to(model.device), states[run.method], choice)
            counts[run.name] += [
                [expression.id, *count_pixels(_first_or_empty(masks), expected), number]
                for (expression, expected), masks, number in zip(part, answers, kept, strict=True)
            ]
    return {"counts": counts, "broken": wrong, "content": fingerprint_of_content(image, asked, wrong)}


def _first_or_empty(masks: torch.Tensor) -> np.ndarray:
    """The first of some masks `(num_masks, H, W)`."""
    return masks[0].cpu().numpy() if len(masks) else np.zeros(masks.shape[-2:], dtype=bool)


def _passes(
    asked: Sequence[tuple[Referring, np.ndarray | None]],
) -> Iterator[tuple[str, list[tuple[Referring, np.ndarray | None]]]]:
    """Template and expressions of each forward pass: as many as fit, all of one template."""
    for template, group in groupby(asked, key=lambda pair: pair[0].question_template):
        same = list(group)
        for start in range(0, len(same), EXPRESSIONS_PER_PASS):
            yield template, same[start : start + EXPRESSIONS_PER_PASS]


def _encode(
    model: LiteLVLMForSegmentation, inputs: Mapping[str, Any], method: str, known: LiteLVLMImageState | None
) -> LiteLVLMImageState:
    """The state of an image for a method; SAM's part is taken from a known state, as it is the same for all."""
    clip = {name: inputs[name] for name in ("pixel_values", "image_sizes") if name in inputs}
    if known is None:
        return model.encode_image(**clip, sam_pixel_values=inputs["sam_pixel_values"], pruning_method=method)
    state = model.model.encode_image(**clip, pruning_method=method)
    return replace(state, sam_image_embeddings=known.sam_image_embeddings)


__all__ = ["measure", "read_masks"]
