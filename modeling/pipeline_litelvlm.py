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
The `referring-segmentation` pipeline: an image and a text in, masks and the answer out. Beside it stands Transformers'
own for models without masks, as a saved folder can name what is in this file only.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ImageTextToTextPipeline, Pipeline

from .images_litelvlm import load_rgb
from .outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState


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
    bottom]`), `answer` and `reason` (`None`). An answer without a mask gives one entry in which only `label`, `answer`
    and `reason`, why there is no mask, are not `None`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any):
        """
        Raises:
            ValueError: a model without masks, or a processor of another model.
        """
        super().__init__(*args, **kwargs)
        if self.model.config.sam_config is None:
            raise ValueError(
                'This model makes no masks; ask it for text by `pipeline("image-text-to-text", model=...)`.'
            )
        self.processor.check_fits(self.model.config)

    def __call__(self, inputs: Any, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Args:
            inputs: an image (see [`load_rgb`]), many images, or the forms named above. Many are a list, or what is
                read one at a time: a dataset (of `datasets` or torch), a column of it, or an iterator.
            text (`str` or many, *optional*): what to segment, or one text for each image. A single image with many
                texts is asked each of them.
            batch_size (`int`): conversations per forward pass.
            answer (`str`): taken as given, instead of generating one, such as `"It is [SEG]."`: always a mask.
            threshold (`float`): masks of a lower score are left out (0 by default).
            mask_threshold (`float`): pixels of a higher probability are inside the mask (0.5 by default).
            question_template (`str`): as in the processor.
            kwargs: those of [`LiteLVLMForSegmentation.segment`], such as `num_retained_tokens`, `pruning_method` and
                `max_new_tokens` (32 unless another length is given here or in the model's generation configuration).
                With `num_return_sequences` an input's list holds the entries of all its answers.

        Returns:
            A list for one input, a list of lists for a list or tuple, and an iterator over lists for all else.

        Raises:
            ValueError: an image without a text, or numbers of images and texts that differ.
        """
        if not _is_many(inputs) and not _is_many(text):
            return super().__call__(inputs if text is None else {"image": inputs, "text": text}, **kwargs)
        eager = isinstance(inputs if _is_many(inputs) else text, (list, tuple))
        if _is_many(inputs) and text is not None:
            inputs = _pairs(inputs, text)
        elif text is not None:
            image = load_rgb(inputs)  # once, and encoded once
            inputs = ({"image": image, "text": one} for one in _each(text))
        results = super().__call__((item for item in _each(inputs)), **kwargs)
        return list(results) if eager else results

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
        batch: list[Any] = []
        encoded = _LastImage()
        for item in inputs:
            batch.append(self.preprocess(item, **preprocess_params))
            if len(batch) == batch_size:
                yield from self._run_batch(batch, forward_params, postprocess_params, encoded)
                batch = []
        if batch:
            yield from self._run_batch(batch, forward_params, postprocess_params, encoded)

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
        self,
        batch: list[dict[str, Any]],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
        encoded: "_LastImage | None" = None,
    ) -> Any:
        outputs = self.forward({"batch": batch, "encoded": encoded}, **forward_params)
        yield from self.postprocess(outputs, **postprocess_params)

    def _forward(
        self, model_inputs: dict[str, Any], threshold: float = 0.0, mask_threshold: float = 0.5, **segment_kwargs: Any
    ) -> dict[str, Any]:
        batch, encoded = model_inputs["batch"], model_inputs["encoded"]
        images: Any = [item["image"] for item in batch]
        texts = [item["text"] for item in batch]
        digests = {_digest(image) for image in images} if encoded is not None else set()
        if len(digests) == 1:
            images = images[0]
        inputs = self.processor(images=images, text=texts, question_template=batch[0]["question_template"])
        lengths = {"max_new_tokens", "max_length", "generation_config"}
        if segment_kwargs.get("answer") is not None:
            segment_kwargs["processor"] = self.processor
        elif self.model.generation_config.max_new_tokens is None and not lengths & segment_kwargs.keys():
            segment_kwargs["max_new_tokens"] = 32
        inputs = inputs.to(self.device)
        if len(digests) == 1:
            method = segment_kwargs.get("pruning_method")
            segment_kwargs["image_state"] = encoded.state_of(digests.pop(), self.model, inputs, method)
        outputs = self.model.segment(**inputs, **segment_kwargs)
        num_answers = len(outputs.pred_masks) // len(batch)
        text_labels = [turns for turns in inputs.text_labels for _ in range(num_answers)]
        # Here, and not after Transformers has moved everything to the CPU: masks grow where the model runs
        return {
            "texts": [item["text"] for item in batch],
            "answers": self.processor.decode_answers(outputs, inputs),
            "reasons": self.processor.explain_no_masks(outputs, inputs),
            "found": self.processor.post_process_instance_segmentation(
                outputs, inputs, threshold, mask_threshold, text_labels
            ),
        }

    def postprocess(self, model_outputs: dict[str, Any]) -> list[list[dict[str, Any]]]:
        texts = model_outputs["texts"]
        num_answers = len(model_outputs["answers"]) // len(texts)
        results: list[list[dict[str, Any]]] = [[] for _ in texts]
        for i, (answer, reason, entries) in enumerate(
            zip(*(model_outputs[name] for name in ("answers", "reasons", "found")), strict=True)
        ):
            text = texts[i // num_answers]
            for entry in entries:
                entry["mask"] = Image.fromarray((entry["mask"] * 255).to(torch.uint8).numpy())
                entry |= {"answer": answer, "reason": None}
            if reason is not None:
                nothing: dict[str, Any] = dict.fromkeys(("score", "predicted_iou", "mask", "box"))
                entries = [{"label": text, "answer": answer, "reason": reason} | nothing]
            results[i // num_answers] += entries
        return results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the model and the processor, both with the code that loads them."""
        # Instead of the base's, which leaves out the guide's tokenizer and SAM's image processor
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class _LastImage:
    """What was computed of the image that a call asked about last. It ends with the call, as weights may change."""

    def __init__(self) -> None:
        self.digest: bytes | None = None
        self.state: LiteLVLMImageState | None = None

    def state_of(self, digest: bytes, model: Any, inputs: Any, method: str | None) -> LiteLVLMImageState | None:
        """
        The state of an image that is asked about again, in place of its tensors in `inputs`; `None` the first time, as
        that may stay the only one.
        """
        if digest != self.digest:
            self.digest, self.state = digest, None
            return None
        images = {name: inputs.pop(name) for name in IMAGE_INPUTS if name in inputs}
        if self.state is None:
            self.state = model.encode_image(**images, pruning_method=method)
        return self.state


def _digest(image: Image.Image) -> bytes:
    """Of what an image shows: whoever gives it may write the next one into the same memory or file."""
    digest = hashlib.sha256(repr(image.size).encode())
    digest.update(image.tobytes())
    return digest.digest()


def _is_many(value: Any) -> bool:
    """Whether these are several inputs: a list, a dataset, a column or an iterator, and not one image or text."""
    single = (str, bytes, os.PathLike, dict, Image.Image, np.ndarray, torch.Tensor)
    return not isinstance(value, single) and (hasattr(value, "__iter__") or hasattr(value, "__getitem__"))


def _each(values: Any) -> Iterable[Any]:
    # By index where there is a length: a dataset need not know its own end otherwise
    return (values[i] for i in range(len(values))) if hasattr(values, "__len__") else values


def _pairs(images: Any, text: Any) -> Iterator[dict[str, Any]]:
    if not _is_many(text):
        return ({"image": image, "text": text} for image in _each(images))
    if hasattr(images, "__len__") and hasattr(text, "__len__") and len(images) != len(text):
        raise ValueError(f"There are {len(images)} images and {len(text)} texts; give one for each.")
    return ({"image": image, "text": one} for image, one in zip(_each(images), _each(text), strict=True))


__all__ = ["ImageTextToTextPipeline", "ReferringSegmentationPipeline"]
