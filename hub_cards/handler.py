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
"""What an inference endpoint runs, from the folder that it stands in: a picture and a text in, masks out."""

import base64
import io
from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor


class EndpointHandler:
    """
    Args:
        path (`str`): folder or Hub id of the model.
    """

    def __init__(self, path: str = "."):
        device_map = "auto" if torch.cuda.is_available() else None
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True, dtype="auto", device_map=device_map)
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data (`dict`): `{"inputs": {"image": ..., "text": ...}, "parameters": {...}}` with a base64 picture or its
                URL, and optional arguments of `segment`, such as `num_retained_tokens`.

        Returns:
            `{"answer": str, "masks": [str, ...]}`, each mask a base64 PNG of 0 and 255 at the picture's size; or
            `{"error": str}` for a request that cannot be answered.
        """
        try:
            inputs = data["inputs"]
            image, text = inputs["image"], inputs["text"]
            if not image.startswith(("http://", "https://")):
                image = Image.open(io.BytesIO(base64.b64decode(image, validate=True)))
            prepared = self.processor(images=image, text=text).to(self.model.device)
            output = self.model.segment(**prepared, **({"max_new_tokens": 64} | (data.get("parameters") or {})))
        except (KeyError, TypeError, ValueError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        masks = self.processor.post_process_masks(output, prepared)[0]
        return {"answer": self.processor.decode_answers(output)[0], "masks": [_png(mask) for mask in masks]}


def _png(mask: torch.Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu() * 255).to(torch.uint8).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
