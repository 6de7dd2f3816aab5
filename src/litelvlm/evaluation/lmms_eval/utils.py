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
What the tasks of this folder call. A reply is JSON, `{"masks": [...]}` with run lengths of COCO, as of lmms-eval's
SAM 3; what is none of that counts as no mask.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from litelvlm.data.masks import decode_segmentation
from litelvlm.evaluation.metrics import PixelCounts, Tally, count_pixels


def process_docs(dataset: Any) -> Any:
    """One row for each expression, in place of one for each object."""

    def split(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        answers = rows.pop("answer")
        numbers = [i for i, texts in enumerate(answers) for _ in texts]
        expressions = [text for texts in answers for text in texts]
        return {name: [values[i] for i in numbers] for name, values in rows.items()} | {"expression": expressions}

    return dataset.map(split, batched=True, batch_size=50, remove_columns=["answer"])


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: dict[str, Any]) -> str:
    """The expression; models put it into a question of their own."""
    return doc["expression"]


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, PixelCounts]:
    """Pixels of the union of all masks of the reply."""
    width, height = doc["image"].size
    segmentation = doc["segmentation"]
    is_polygon = isinstance(segmentation, list) and not isinstance(segmentation[0], (list, dict))
    expected = decode_segmentation([segmentation] if is_polygon else segmentation, height, width)
    predicted = np.zeros((height, width), dtype=bool)
    for mask in read_masks(results[0] if results else ""):
        predicted |= decode_segmentation(mask, height, width).astype(bool)
    counts = count_pixels(predicted, expected.astype(bool))
    return {"ciou": counts, "giou": counts}


def read_masks(reply: str) -> list[dict[str, Any]]:
    """The run lengths in a reply; none in one of words."""
    try:
        masks = json.loads(reply)["masks"]
    except (ValueError, KeyError, TypeError):
        return []
    return masks if isinstance(masks, list) else []


def ciou(counts: Sequence[PixelCounts]) -> float | None:
    return _figure("ciou", counts)


def giou(counts: Sequence[PixelCounts]) -> float | None:
    return _figure("giou", counts)


def _figure(name: str, counts: Sequence[PixelCounts]) -> float | None:
    """In percent."""
    return Tally([""] * len(counts), [PixelCounts(*count) for count in counts], num_resamples=0).figures()[name]
