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
"""What training needs beside Transformers' Trainer: examples as batches with labels of text and masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .evaluation.protocol import ANSWER
from .modeling.processing_litelvlm import LiteLVLMProcessor


@dataclass
class SegmentationCollator:
    """
    The `data_collator` of Transformers' Trainer, which needs `remove_unused_columns=False` beside it. An example has

    - `image`, in any form that the processor takes;
    - `text`: a question, or a list of turns about the image;
    - `masks`: `(num_masks, H, W)` array of 0 and 1 at the size of the image, one for each [SEG] of its answers;
      `(0, H, W)` where nothing is meant;
    - `answer` (optional, nested as `text`): by default `answer` below for every turn.

    Args:
        processor ([`LiteLVLMProcessor`]): of the model that is trained.
        answer (`str`): to every text without one of its own; holds [SEG].
    """

    processor: LiteLVLMProcessor
    answer: str = ANSWER

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What `forward` takes, with `labels` and `mask_labels`. Raises ValueError as the processor does."""
        turns = [[text] if isinstance(text := example["text"], str) else list(text) for example in examples]
        answers = [
            [self.answer] * len(asked) if (answer := example.get("answer")) is None else answer
            for example, asked in zip(examples, turns, strict=True)
        ]
        answers = [[answer] if isinstance(answer, str) else list(answer) for answer in answers]
        images, masks = ([example[name] for example in examples] for name in ("image", "masks"))
        return dict(self.processor(images, turns, answers=answers, segmentation_maps=masks))


__all__ = ["SegmentationCollator"]
