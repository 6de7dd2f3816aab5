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
"""An image and texts in, answers and masks out: what each way to offer a model does with a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor


@dataclass(frozen=True)
class Answer:
    """
    Args:
        text (`str`): what was asked.
        answer (`str`): of the language model.
        reason (`str`, *optional*): why there is no mask.
        found (`list[dict]`): the masks, as `post_process_instance_segmentation` gives them.
    """

    text: str
    answer: str
    reason: str | None
    found: list[dict[str, Any]]


@torch.inference_mode()
def ask(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    image: Image.Image,
    texts: Sequence[str],
    **options: Any,
) -> list[Answer]:
    """
    Asks each text about an image, which is encoded once.

    Args:
        options: those of `segment`.

    Raises:
        ValueError: as of the processor and `segment`.
    """
    inputs = processor(images=image, text=list(texts)).to(model.device)
    output = model.segment(**inputs, processor=processor, **options)
    answers = processor.decode_answers(output, inputs)
    reasons = processor.explain_no_masks(output, inputs)
    found = processor.post_process_instance_segmentation(output, inputs)
    return [Answer(*parts) for parts in zip(texts, answers, reasons, found, strict=True)]


__all__ = ["Answer", "ask"]
