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
What an inference endpoint runs, from beside the weights: an image and a text in, the answer and masks out.

Who asks is a stranger. A request is answered within the limits below; its image comes with it, unless the variable
LITELVLM_FETCH_URLS is 1: then it may be a URL of the public internet.
"""

import base64
import io
import os
from collections.abc import Callable
from http.client import HTTPException
from time import monotonic
from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from ..modeling.chat_litelvlm import half_of_character
from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES, TooLargeError, fetch, open_untrusted

PARAMETERS = {"answer": str, "max_new_tokens": int, "num_retained_tokens": int, "pruning_method": str}
MAX_CHARACTERS = 2000
MAX_NEW_TOKENS = 512
MAX_SECONDS = 60.0
MAX_FETCHING_SECONDS = 10.0


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
            data (`dict`): `{"inputs": {"image": ..., "text": ...}, "parameters": {...}}`; the image as base64 or,
                where that is allowed, as its URL, one text, and of the parameters those in `PARAMETERS`.

        Returns:
            `{"answer": str, "reason": ..., "masks": [str, ...], "scores": [...], "predicted_ious": [...], "boxes":
            [...]}`: why there is no mask, or `None`; each mask a PNG in base64, 255 inside and 0 outside, at the size
            of the image; of each mask the mean probability of its pixels, the IoU that SAM predicts and `[left, top,
            right, bottom]`. A model that answers in text only gives no masks. With the parameter
            `answer`, such as `"It is [SEG]."`, nothing is generated.

        Raises:
            ValueError: a request that cannot be answered, or not within the limits; the endpoint hands the message to
                who has asked.
        """
        started = monotonic()
        request = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(request, dict) or not {"image", "text"} <= request.keys():
            raise ValueError('The request has no image or no text; send {"inputs": {"image": ..., "text": ...}}.')
        if unknown := sorted(set(request) - {"image", "text"}, key=str):
            raise ValueError(f"Unknown inputs {shorten(unknown)}; allowed are image and text.")
        parameters = check_parameters(data.get("parameters"))
        text = check_text("text", request["text"])
        inputs = self.processor(images=decode_image(request["image"]), text=text, return_tensors="pt").to(
            self.model.device
        )
        if "answer" in parameters:
            parameters["processor"] = self.processor
        else:
            parameters = {"max_new_tokens": 64, "max_time": MAX_SECONDS - (monotonic() - started)} | parameters
        if self.model.config.sam_config is None:
            output, found, reason = self.model.generate(**inputs, **parameters), [], None
        else:
            output = self.model.segment(**inputs, **parameters)
            (found,) = self.processor.post_process_instance_segmentation(output, inputs)
            (reason,) = self.processor.explain_no_masks(output, inputs)
        # What was generated until then is cut off anywhere
        if monotonic() - started > MAX_SECONDS:
            raise ValueError(f"The answer takes longer than {MAX_SECONDS:g} seconds; ask for fewer `max_new_tokens`.")
        return {
            "answer": self.processor.decode_answers(output, inputs)[0],
            "reason": reason,
            "masks": [png(entry["mask"]) for entry in found],
            "scores": [entry["score"] for entry in found],
            "predicted_ious": [entry["predicted_iou"] for entry in found],
            "boxes": [entry["box"] for entry in found],
        }


def check_parameters(parameters: Any) -> dict[str, Any]:
    """Those that are given, of the right types; the model looks at the rest of their values."""
    if not isinstance(parameters, (dict, type(None))):
        raise ValueError('`parameters` are no object; send {"parameters": {"max_new_tokens": 64}}.')
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(PARAMETERS), key=str):
        raise ValueError(f"Unknown parameters {shorten(unknown)}; allowed are {', '.join(PARAMETERS)}.")
    for name, value in given.items():
        if type(value) is not PARAMETERS[name]:
            raise ValueError(f"`{name}` is {shorten(value)}; allowed is a value of type {PARAMETERS[name].__name__}.")
    if not 1 <= given.get("max_new_tokens", 1) <= MAX_NEW_TOKENS:
        raise ValueError(f"`max_new_tokens` is {shorten(given['max_new_tokens'])}; allowed are 1 to {MAX_NEW_TOKENS}.")
    for name in ("answer", "pruning_method"):
        check_text(name, given.get(name, ""))
    return given


def check_text(name: str, text: Any) -> str:
    """One text of allowed length."""
    if not isinstance(text, str):
        raise ValueError(f"`{name}` is {shorten(text)}; allowed is one text. Send a request for each of several.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"`{name}` has {len(text)} characters; allowed are {MAX_CHARACTERS}.")
    if reason := half_of_character(text):
        raise ValueError(f"`{name}` {reason}.")
    return text


def shorten(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else f"{text[:80]}..."


def decode_image(source: Any) -> Image.Image:
    """An image from base64 (of a data URL too) or, where that is allowed, a URL."""
    try:
        return open_untrusted(read_image(source, fetch_image))
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"`image` is neither an image in base64 nor an allowed URL: {error}") from error


def read_image(source: Any, fetch_url: Callable[[str], bytes]) -> bytes:
    """The file that base64 or a URL of http and https stands for; never one of this machine."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return fetch_url(source)
    if len(source) * 3 // 4 > UNTRUSTED_BYTES:
        raise TooLargeError(f"it has more than {UNTRUSTED_BYTES // 2**20} MiB, which is the limit")
    content = "".join(source.rpartition(",")[2].split())
    if not content:
        raise ValueError("it is empty")
    return base64.b64decode(content, validate=True)


def fetch_image(url: str) -> bytes:
    """What a URL gives, from public addresses only."""
    if os.environ.get("LITELVLM_FETCH_URLS") != "1":
        raise ValueError("this endpoint fetches no URLs; send the image in base64")
    try:
        return fetch(url, max_bytes=UNTRUSTED_BYTES, max_seconds=MAX_FETCHING_SECONDS, public_only=True)
    except HTTPException as error:
        raise ValueError(f"the answer is not HTTP ({type(error).__name__})") from error


def png(mask: torch.Tensor) -> str:
    """A mask, bool of shape `(height, width)`, as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray((mask.cpu() * 255).to(torch.uint8).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
