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
"""What an inference endpoint runs, from beside the weights: a picture and a text in, the answer and masks out."""

import base64
import io
from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

PARAMETERS = ("max_new_tokens", "num_retained_tokens", "pruning_method")


class EndpointHandler:
    """
    Args:
        path (`str`): folder or Hub id of the model.
    """

    def __init__(self, path: str = "."):
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True, dtype="auto", device_map="auto")
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data (`dict`): `{"inputs": {"image": ..., "text": ...}, "parameters": {...}}`; the picture as base64 or as
                its URL, and of the parameters those in `PARAMETERS`.

        Returns:
            `{"answer": str, "masks": [str, ...]}`, each mask a PNG in base64, 255 inside and 0 outside, at the size of
            the picture. A model that answers in text only gives no masks.

        Raises:
            ValueError: a request that cannot be answered; the endpoint hands the message to who has asked.
        """
        request, parameters = data.get("inputs"), data.get("parameters") or {}
        if not isinstance(request, dict) or not {"image", "text"} <= request.keys():
            raise ValueError('The request has no picture or no text; send {"inputs": {"image": ..., "text": ...}}.')
        if unknown := sorted(set(parameters) - set(PARAMETERS)):
            raise ValueError(f"Unknown parameters {unknown}; allowed are {', '.join(PARAMETERS)}.")
        inputs = self.processor(images=picture(request["image"]), text=request["text"]).to(self.model.device)
        options = {"max_new_tokens": 64} | parameters
        if self.model.config.sam_config is None:
            tokens = self.model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :]
            return {"answer": self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip(), "masks": []}
        output = self.model.segment(**inputs, **options)
        masks = self.processor.post_process_masks(output, inputs)[0]
        return {"answer": self.processor.decode_answers(output)[0], "masks": [png(mask) for mask in masks]}


def picture(source: Any) -> Any:
    """A picture from base64 (of a data URL too), or a URL for the processor to fetch; never a path of this machine."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return source
    try:
        image = Image.open(io.BytesIO(base64.b64decode(source.rpartition(",")[2])))
        image.load()
    except (AttributeError, ValueError, OSError) as error:
        raise ValueError(f"`image` is neither a URL nor a picture in base64: {error}") from error
    return image


def png(mask: torch.Tensor) -> str:
    """A mask, bool of shape `(height, width)`, as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu() * 255).to(torch.uint8).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
