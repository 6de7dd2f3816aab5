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
"""Label Studio: masks for its tasks, as brush strokes or polygons, for an ML backend's `predict`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue
from PIL import Image

from ..modeling.images_litelvlm import load_rgb
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..outputs.polygons import join_rings, outline_edges
from .asking import ask


def predict(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    interface: LabelInterface,
    tasks: Sequence[Mapping[str, Any]],
    locate: Callable[[Mapping[str, Any], str], Any],
    **options: Any,
) -> list[PredictionValue]:
    """
    A prediction for each task: what each label of its BrushLabels and PolygonLabels refers to. A label asks for its
    `predicted_values`, several by commas, such as `<Label value="Dog" predicted_values="the dog on the left"/>`, and
    for its own name where it has none.

    Args:
        model: with masks.
        processor: of the model.
        interface: the project's labelling configuration.
        tasks: as Label Studio sends them.
        locate: gives a task's image, as [`load_rgb`] takes it, from the task and what its data says of it.
        options: those of `segment`, such as `max_new_tokens`.

    Returns:
        `list[PredictionValue]`: a region for each mask (of polygons for each of its parts), with its score; the score
        of a task is that of its worst mask, and 0 where there is none.

    Raises:
        ValueError: a configuration without these labels for an image, a task without the image, or an image that
            cannot be read.
    """
    controls = [control for control in interface.controls if control.tag in _FORMATS]
    images = {tag.name: tag for control in controls for tag in control.objects if tag.tag == "Image"}
    if not images:
        raise ValueError(
            "The labelling configuration has no BrushLabels or PolygonLabels for an Image; masks need one of them."
        )
    predictions = []
    for task in tasks:
        regions: list[Any] = []
        for name, tag in images.items():
            if tag.value_name not in task["data"]:
                raise ValueError(
                    f"Task {task.get('id')} has no {tag.value_name!r} in its data, which is to be an image."
                )
            image = load_rgb(locate(task, task["data"][tag.value_name]))
            asked = [
                (control, label, text)
                for control in controls
                if name in control.to_name
                for label, attributes in control.labels_attrs.items()
                for text in _texts(label, attributes.attr.get("predicted_values"))
            ]
            texts = list(dict.fromkeys(text for *_, text in asked))
            found = {answer.text: answer.found for answer in ask(model, processor, image, texts, **options)}
            for control, label, text in asked:
                for entry in found[text]:
                    regions += _regions(control, name, label, image, entry)
        score = min((region["score"] for region in regions), default=0.0)
        predictions.append(PredictionValue(result=regions, score=score))
    return predictions


def _texts(label: str, predicted_values: str | None) -> list[str]:
    return [text.strip() for text in (predicted_values or "").split(",") if text.strip()] or [label]


def _regions(
    control: Any, to_name: str, label: str, image: Image.Image, entry: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    kind = control.tag.lower()
    for value in _FORMATS[control.tag](entry["mask"].cpu().numpy()):
        yield {
            "id": uuid4().hex[:10],
            "from_name": control.name,
            "to_name": to_name,
            "type": kind,
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "score": round(entry["score"], 4),
            "value": {kind: [label], **value},
        }


def _brush(mask: np.ndarray) -> list[dict[str, Any]]:
    return [{"format": "rle", "rle": mask2rle(mask.astype(np.uint8) * 255)}] if mask.any() else []


def _polygons(mask: np.ndarray) -> list[dict[str, Any]]:
    """In percent of width and height; a hole is reached by a way that encloses nothing."""
    percent = 100 / np.array(mask.shape[::-1])
    return [{"points": (join_rings(rings) * percent).tolist(), "closed": True} for rings in outline_edges(mask)]


_FORMATS = {"BrushLabels": _brush, "PolygonLabels": _polygons}

__all__ = ["predict"]
