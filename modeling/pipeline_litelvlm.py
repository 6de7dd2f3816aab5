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
"""The `referring-segmentation` pipeline: an image and a text in, masks and the answer out."""

import os
from typing import Any

import torch
from PIL import Image
from transformers import Pipeline

from .images_litelvlm import load_rgb


class ReferringSegmentationPipeline(Pipeline):
    """
    Segments what a text refers to.

    ```python
    >>> pipe = pipeline(model="org/litelvlm-lisa-7b", trust_remote_code=True)
    >>> pipe("street.jpg", "the dog on the left")
    [{'label': 'the dog on the left', 'score': 0.98, 'predicted_iou': 0.95, 'mask': <PIL.Image.Image mode=L>, ...}]
    ```

    Inputs are an image and a text, a `{"image": ..., "text": ...}`, or a list, dataset or generator of those. Each
    gives a list with one entry per mask: `label` (the text), `score` (mean probability of the mask's pixels),
    `predicted_iou` (SAM's own estimate), `mask` (0 or 255, at the size of the image), `box` (`[left, top, right,
    bottom]`) and `answer`. An answer without a mask gives one entry in which only `label` and `answer` are not `None`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.processor.check_fits(self.model.config)

    def __call__(self, inputs: Any, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Args:
            inputs: an image (see [`load_rgb`]), a list of images, or the forms named above.
            text (`str` or `list[str]`, *optional*): what to segment, or one text for each image. A single image
                with a list of texts is asked each of them.
            batch_size (`int`): conversations per forward pass.
            answer (`str`): taken as given, instead of generating one, such as `"It is [SEG]."`: always a mask.
            threshold (`float`): masks of a lower score are left out (0 by default).
            mask_threshold (`float`): pixels of a higher probability are inside the mask (0.5 by default).
            question_template (`str`): as in the processor.
            kwargs: those of [`LiteLVLMForSegmentation.segment`], such as `num_retained_tokens`, `pruning_method` and
                `max_new_tokens` (32 unless another length is given here or in the model's generation configuration).
        """
        if isinstance(inputs, (list, tuple)) and text is not None:
            texts = [text] * len(inputs) if isinstance(text, str) else list(text)
            if len(texts) != len(inputs):
                raise ValueError(f"There are {len(inputs)} images and {len(texts)} texts; give one for each.")
            inputs = [{"image": image, "text": one} for image, one in zip(inputs, texts, strict=True)]
        elif isinstance(text, (list, tuple)):
            inputs = [{"image": inputs, "text": one} for one in text]
        elif text is not None:
            inputs = {"image": inputs, "text": text}
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        question_template: str | None = None,
        threshold: float | None = None,
        mask_threshold: float | None = None,
        **segment_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess = {} if question_template is None else {"question_template": question_template}
        thresholds = {"threshold": threshold, "mask_threshold": mask_threshold}
        forward = segment_kwargs | {name: value for name, value in thresholds.items() if value is not None}
        return preprocess, forward, {}

    def preprocess(self, inputs: dict[str, Any], question_template: str | None = None) -> dict[str, Any]:
        if not isinstance(inputs, dict) or not {"image", "text"} <= inputs.keys():
            raise ValueError(
                f"The pipeline got a {type(inputs).__name__} without a text; allowed are an image and a text, or "
                '{"image": ..., "text": ...}.'
            )
        # Tensors are made per batch, with the padding that only a batch knows
        return {"image": load_rgb(inputs["image"]), "text": inputs["text"], "question_template": question_template}

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        # By index where there is a length: a dataset need not know its own end otherwise
        items = (inputs[i] for i in range(len(inputs))) if hasattr(inputs, "__len__") else inputs
        batch: list[Any] = []
        for item in items:
            batch.append(self.preprocess(item, **preprocess_params))
            if len(batch) == batch_size:
                yield from self._run_batch(batch, forward_params, postprocess_params)
                batch = []
        if batch:
            yield from self._run_batch(batch, forward_params, postprocess_params)

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        batch = [self.preprocess(inputs, **preprocess_params)]
        return next(self._run_batch(batch, forward_params, postprocess_params))

    def _run_batch(
        self, batch: list[dict[str, Any]], forward_params: dict[str, Any], postprocess_params: dict[str, Any]
    ) -> Any:
        outputs = self.forward({"batch": batch}, **forward_params)
        yield from self.postprocess(outputs, **postprocess_params)

    def _forward(
        self, model_inputs: dict[str, Any], threshold: float = 0.0, mask_threshold: float = 0.5, **segment_kwargs: Any
    ) -> dict[str, Any]:
        batch = model_inputs["batch"]
        inputs = self.processor(
            images=[item["image"] for item in batch],
            text=[item["text"] for item in batch],
            question_template=batch[0]["question_template"],
        )
        lengths = {"max_new_tokens", "max_length", "generation_config"}
        if segment_kwargs.get("answer") is not None:
            segment_kwargs["processor"] = self.processor
        elif self.model.generation_config.max_new_tokens is None and not lengths & segment_kwargs.keys():
            segment_kwargs["max_new_tokens"] = 32
        outputs = self.model.segment(**inputs.to(self.device), **segment_kwargs)
        # Here, and not after Transformers has moved everything to the CPU: masks grow where the model runs
        return {
            "texts": [item["text"] for item in batch],
            "answers": self.processor.decode_answers(outputs, inputs),
            "num_masks": [len(masks) for masks in outputs.pred_masks],
            "found": self.processor.post_process_instance_segmentation(outputs, inputs, threshold, mask_threshold),
        }

    def postprocess(self, model_outputs: dict[str, Any]) -> list[list[dict[str, Any]]]:
        results = []
        for text, answer, num_masks, entries in zip(
            *(model_outputs[name] for name in ("texts", "answers", "num_masks", "found")), strict=True
        ):
            for entry in entries:
                entry["mask"] = Image.fromarray((entry["mask"] * 255).to(torch.uint8).numpy())
                entry["answer"] = answer
            if not num_masks:
                nothing: dict[str, Any] = dict.fromkeys(("score", "predicted_iou", "mask", "box"))
                entries = [{"label": text, "answer": answer} | nothing]
            results.append(entries)
        return results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model and the processor, both with the code that loads them."""
        # Instead of the base's, which leaves out the guide's tokenizer and SAM's image processor
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


__all__ = ["ReferringSegmentationPipeline"]
