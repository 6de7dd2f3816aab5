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
"""X-AnyLabeling: polygons for its server's `predict`."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..outputs import to_labelme
from .asking import ask


def predict(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    image: np.ndarray,
    params: Mapping[str, Any],
    **options: Any,
) -> dict[str, Any]:
    """
    Segments what the text of the tool's prompt names, several things by commas or full stops.

    Args:
        model: with masks.
        processor: of the model.
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): as the server reads it, blue first.
        params: of the request; `text_prompt` is read.
        options: those of `segment`, such as `max_new_tokens`.

    Returns:
        `{"shapes": [...], "description": ""}`: a polygon for each part of a mask, the parts of one with the same
        `group_id`, each with the text as its label and the mask's score. No shapes without a text.
    """
    texts = [text.strip() for text in re.split("[,.]", params.get("text_prompt") or "") if text.strip()]
    if not texts:
        return {"shapes": [], "description": ""}
    answers = ask(model, processor, Image.fromarray(image[..., ::-1]), list(dict.fromkeys(texts)), **options)
    found = [entry for answer in answers for entry in answer.found]
    shapes = to_labelme(found, image.shape[:2], "")["shapes"]  # whose format the tool's is built on
    for shape in shapes:
        shape["score"] = found[shape["group_id"] - 1]["score"]
        del shape["mask"]
    return {"shapes": shapes, "description": ""}


__all__ = ["predict"]
