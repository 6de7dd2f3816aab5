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
"""What an inference endpoint runs, from beside the weights: an image and a text in, the answer and masks out."""

import base64
import io
from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

PARAMETERS = ("answer", "max_new_tokens", "num_retained_tokens", "pruning_method")


class EndpointHandler:
    """
    Args:
        path (`str`): folder or Hub id of the model.
    """

    def __init__(self, path: str = "."):
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True, dtype="auto", device_map="auto")
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)
        self.processor.check_fits(self.model.config)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data (`dict`): `{"inputs": {"image": ..., "text": ...}, "parameters": {...}}`; the image as base64 or as
                its URL, and of the parameters those in `PARAMETERS`.

        Returns:
            `{"answer": str, "masks": [str, ...], "scores": [...], "predicted_ious": [...], "boxes": [...]}`, each mask
            a PNG in base64, 255 inside and 0 outside, at the size of the image; of each mask the mean probability of
            its pixels, the IoU that SAM predicts and `[left, top, right, bottom]`. A model that answers in text only
            gives no masks. With the parameter `answer`, such as `"It is [SEG]."`, nothing is generated.

        Raises:
            ValueError: a request that cannot be answered; the endpoint hands the message to who has asked.
        """
        request, parameters = data.get("inputs"), data.get("parameters") or {}
        if not isinstance(request, dict) or not {"image", "text"} <= request.keys():
            raise ValueError('The request has no image or no text; send {"inputs": {"image": ..., "text": ...}}.')
        if unknown := sorted(set(parameters) - set(PARAMETERS)):
            raise ValueError(f"Unknown parameters {unknown}; allowed are {', '.join(PARAMETERS)}.")
        inputs = self.processor(images=decode_image(request["image"]), text=request["text"], return_tensors="pt").to(
            self.model.device
        )
        if parameters.get("answer") is None:
            parameters = {"max_new_tokens": 64} | parameters
        else:
            parameters = parameters | {"processor": self.processor}
        if self.model.config.sam_config is None:
            output, found = self.model.generate(**inputs, **parameters), []
        else:
            output = self.model.segment(**inputs, **parameters)
            (found,) = self.processor.post_process_instance_segmentation(output, inputs)
        return {
            "answer": self.processor.decode_answers(output, inputs)[0],
            "masks": [png(entry["mask"]) for entry in found],
            "scores": [entry["score"] for entry in found],
            "predicted_ious": [entry["predicted_iou"] for entry in found],
            "boxes": [entry["box"] for entry in found],
        }


def decode_image(source: Any) -> Any:
    """An image from base64 (of a data URL too), or a URL for the processor to fetch; never a path of this machine."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return source
    try:
        image = Image.open(io.BytesIO(base64.b64decode(source.rpartition(",")[2])))
        image.load()
    except (AttributeError, ValueError, OSError) as error:
        raise ValueError(f"`image` is neither a URL nor an image in base64: {error}") from error
    return image


def png(mask: torch.Tensor) -> str:
    """A mask, bool of shape `(height, width)`, as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu() * 255).to(torch.uint8).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
