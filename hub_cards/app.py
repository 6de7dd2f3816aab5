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
"""A Space: name something in a picture and see its mask. The model's id comes from the variable MODEL_ID."""

import os
from typing import Any

from PIL import Image
from transformers import AutoModel, AutoProcessor

MODEL_ID = os.environ.get("MODEL_ID", "org/litelvlm-tiny")


def load(model_id: str) -> tuple[Any, Any]:
    """Model and processor of a folder or Hub id."""
    model = AutoModel.from_pretrained(model_id, trust_remote_code=True, dtype="auto")
    return model, AutoProcessor.from_pretrained(model_id, trust_remote_code=True)


def segment(
    model: Any, processor: Any, image: Image.Image, text: str, num_retained_tokens: int
) -> tuple[tuple[Image.Image, list[tuple[Any, str]]], str]:
    """The picture with its masks, as an annotated image takes them, and the answer."""
    inputs = processor(images=image, text=text).to(model.device)
    output = model.segment(**inputs, num_retained_tokens=int(num_retained_tokens), max_new_tokens=64)
    masks = processor.post_process_masks(output, inputs)[0]
    return (image, [(mask.cpu().numpy(), text) for mask in masks]), processor.decode_answers(output)[0]


def build(model: Any, processor: Any) -> Any:
    """The page; needs gradio."""
    import gradio

    budget = model.config.num_retained_tokens or model.config.num_patches
    return gradio.Interface(
        lambda image, text, tokens: segment(model, processor, image, text, tokens),
        [
            gradio.Image(type="pil", label="Picture"),
            gradio.Textbox(label="What to segment"),
            gradio.Slider(1, model.config.num_patches, budget, step=1, label="Visual tokens to keep"),
        ],
        [gradio.AnnotatedImage(label="Mask"), gradio.Textbox(label="Answer")],
        title="LiteLVLM",
    )


if __name__ == "__main__":
    build(*load(MODEL_ID)).launch()
