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
Instances in the formats of others. An instance is an entry of what `post_process_instance_segmentation` gives: `mask`
`(H, W)`, bool (or an image, 0 outside), `score`, `predicted_iou`, `label` and `box`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..data.masks import encode_mask
from ..extras import required
from .polygons import join_rings, outline_edges, outline_pixels

Instance = Mapping[str, Any]
Size = Sequence[int]


def to_coco(
    results: Sequence[Sequence[Instance]], sizes: Sequence[Size], file_names: Sequence[str], polygons: bool = False
) -> dict[str, Any]:
    """
    COCO's annotations, with `score`, `predicted_iou` and `text` beside the fields of COCO; categories are the labels.

    Args:
        results: the instances of each conversation.
        sizes: height and width of its image.
        file_names: of its image; conversations about one image name it again.
        polygons (`bool`): outlines instead of compressed run lengths. A hole is reached by a way that encloses
            nothing, as COCO's polygons have no holes. An empty mask, which has no outline, stays run lengths.

    Raises:
        ValueError: another number of results, sizes and names, or a mask of another size than its image.
    """
    images: dict[str, dict[str, Any]] = {}
    categories: dict[str, int] = {}
    annotations: list[dict[str, Any]] = []
    for size, name, instances in _of_images(results, sizes, file_names):
        image = images.setdefault(
            name, {"id": len(images) + 1, "file_name": name, "height": size[0], "width": size[1]}
        )
        for instance in instances:
            mask = _mask(instance, size)
            parts = [join_rings(rings) for rings in outline_edges(mask)] if polygons else []
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": categories.setdefault(instance["label"], len(categories) + 1),
                    "segmentation": [part.flatten().tolist() for part in parts] or encode_mask(mask),
                    "area": int(mask.sum()),
                    "bbox": to_bbox(instance["box"]) or [0, 0, 0, 0],
                    "iscrowd": 0,
                    "score": instance["score"],
                    "predicted_iou": instance["predicted_iou"],
                    "text": instance["label"],
                }
            )
    named = [{"id": number, "name": label} for label, number in categories.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": named}


def to_yolo(instances: Sequence[Instance], size: Size, classes: Sequence[str]) -> str:
    """
    The lines of an image's file in YOLO's format of segmentations: a class and its polygon, in fractions of width and
    height. Holes and parts are joined into the one polygon that a line has. Empty masks are left out.

    Args:
        instances: of one image.
        size: its height and width.
        classes: the labels in the order of their numbers, as the data set's YAML file names them.

    Raises:
        ValueError: a label that is no class, or a mask of another size than the image.
    """
    lines = []
    for instance in instances:
        if instance["label"] not in classes:
            raise ValueError(f"The label {instance['label']!r} is not among `classes`: {', '.join(classes)}.")
        rings = [ring for part in outline_edges(_mask(instance, size)) for ring in part]
        if rings:
            points = join_rings(rings) / (size[1], size[0])
            numbers = " ".join(f"{value:.6f}" for value in points.flatten())
            lines.append(f"{list(classes).index(instance['label'])} {numbers}\n")
    return "".join(lines)


def to_labelme(instances: Sequence[Instance], size: Size, file_name: str) -> dict[str, Any]:
    """
    The file of an image for LabelMe: a polygon for each part, through the pixels that LabelMe draws; the parts of a
    mask share a `group_id`. Empty masks are left out.

    Args:
        instances: of one image.
        size: its height and width.
        file_name: of the image, seen from the folder of the file.

    Raises:
        ValueError: a mask of another size than the image.
    """
    shapes = []
    for number, instance in enumerate(instances, 1):
        for rings in outline_pixels(_mask(instance, size)):
            points = join_rings(rings)
            # LabelMe wants three points; a part of one pixel, or of one line, has fewer
            points = np.resize(points, (max(3, len(points)), 2))
            shape = {"label": instance["label"], "points": points.tolist(), "group_id": number}
            shapes.append(shape | {"description": "", "shape_type": "polygon", "flags": {}, "mask": None})
    file: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
    }
    return file | {"imageHeight": int(size[0]), "imageWidth": int(size[1])}


def to_supervision(instances: Sequence[Instance]) -> Any:
    """
    `supervision.Detections` of one image: `confidence` is the score, `class_id` numbers the labels in their order, and
    `data` holds `class_name` and `predicted_iou`.

    Raises:
        ValueError: `supervision` is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ValueError(
            "The library 'supervision' is not installed; install it with pip install supervision."
        ) from error
    if not instances:
        return supervision.Detections.empty()
    labels = [instance["label"] for instance in instances]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return supervision.Detections(
        xyxy=np.array([instance["box"] or [0, 0, 0, 0] for instance in instances], dtype=np.float64),
        mask=np.stack([_mask(instance) for instance in instances]),
        confidence=np.array([instance["score"] for instance in instances]),
        class_id=np.array([numbers[label] for label in labels]),
        data={
            "class_name": np.array(labels),
            "predicted_iou": np.array([instance["predicted_iou"] for instance in instances]),
        },
    )


def to_dataframe(results: Sequence[Sequence[Instance]], sizes: Sequence[Size], file_names: Sequence[str]) -> Any:
    """
    A `pandas.DataFrame` with a row for each mask: `image`, `label`, `score`, `predicted_iou`, `area`, `bbox` and
    `segmentation` (run lengths). Arguments and errors as of [`to_coco`].
    """
    pandas: Any = required("pandas", "formats")
    columns = ["image", "label", "score", "predicted_iou", "area", "bbox", "segmentation"]
    rows = []
    for size, name, instances in _of_images(results, sizes, file_names):
        for instance in instances:
            mask = _mask(instance, size)
            said = [instance[column] for column in columns[1:4]]
            rows.append([name, *said, int(mask.sum()), to_bbox(instance["box"]), encode_mask(mask)])
    return pandas.DataFrame(rows, columns=columns)


def describe_mask(instance: Instance) -> dict[str, Any]:
    """A mask as JSON can hold it: `segmentation` (run lengths), `bbox`, `area` and `score`."""
    mask = instance["mask"].cpu().numpy()
    return {
        "segmentation": encode_mask(mask),
        "bbox": to_bbox(instance["box"]),
        "area": int(mask.sum()),
        "score": instance["score"],
    }


def to_bbox(box: Size | None) -> list[int] | None:
    """`[left, top, right, bottom]` as COCO writes it: `[left, top, width, height]`; `None` for an empty mask."""
    return None if box is None else [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _of_images(results: Sequence[Any], sizes: Sequence[Size], file_names: Sequence[str]) -> Any:
    counts = len(results), len(sizes), len(file_names)
    if len(set(counts)) != 1 or isinstance(file_names, str):
        raise ValueError(
            f"There are {counts[0]} results, {counts[1]} sizes and {counts[2]} file names; give one of each for each "
            "conversation."
        )
    return zip(([int(edge) for edge in size] for size in sizes), file_names, results, strict=True)


def _mask(instance: Instance, size: Size | None = None) -> np.ndarray:
    mask = instance["mask"]
    mask = (mask.cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)) > 0
    if size is not None and mask.shape != (int(size[0]), int(size[1])):
        raise ValueError(
            f"A mask has shape {mask.shape}, but its image is {int(size[0])} high and {int(size[1])} wide; give the "
            "masks at the size of their image."
        )
    return mask


__all__ = ["to_bbox", "to_coco", "to_dataframe", "to_labelme", "to_supervision", "to_yolo"]
