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
A Space: name something in an image and see its mask. It shows the model whose folder or Hub id the variable MODEL_ID
holds, and otherwise the one in whose folder this file stands.
"""

import os
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoModel, AutoProcessor


def load(model_id: str) -> tuple[Any, Any]:
    """Model and processor of a folder or Hub id."""
    model = AutoModel.from_pretrained(model_id, trust_remote_code=True, dtype="auto", device_map="auto")
    return model, AutoProcessor.from_pretrained(model_id, trust_remote_code=True)


def segment(
    model: Any, processor: Any, image: Image.Image | None, text: str, num_retained_tokens: int
) -> tuple[tuple[Image.Image, list[tuple[Any, str]]], str]:
    """The image with its masks, each a bool array `(height, width)` and its label, and the answer."""
    if image is None:
        raise ValueError("There is no image; choose one.")
    inputs = processor(images=image, text=text).to(model.device)
    output = model.segment(**inputs, num_retained_tokens=num_retained_tokens, max_new_tokens=64)
    (found,) = processor.post_process_instance_segmentation(output, inputs)
    masks = [(entry["mask"].cpu().numpy(), entry["label"]) for entry in found]
    return (image, masks), processor.decode_answers(output, inputs)[0]


def build(model: Any, processor: Any) -> Any:
    """The page, a `gradio.Interface`."""
    import gradio

    def answer(image: Image.Image | None, text: str, num_retained_tokens: float) -> Any:
        try:
            return segment(model, processor, image, text, int(num_retained_tokens))
        except ValueError as error:  # shown as it is; of other errors a page says nothing
            raise gradio.Error(str(error)) from error

    patches = model.config.num_patches
    return gradio.Interface(
        answer,
        [
            gradio.Image(type="pil", label="Image"),
            gradio.Textbox(label="What to segment"),
            gradio.Slider(1, patches, model.config.num_retained_tokens, step=1, label="Visual tokens kept"),
        ],
        [gradio.AnnotatedImage(label="Masks"), gradio.Textbox(label="Answer")],
        title="LiteLVLM",
        flagging_mode="never",
    )


if __name__ == "__main__":
    build(*load(os.environ.get("MODEL_ID") or str(Path(__file__).parent))).launch()
