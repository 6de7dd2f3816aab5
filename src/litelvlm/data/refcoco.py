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
RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO in their official layout, and the same layout written.

    root/refcoco/refs(unc).p          expressions; refs(google).p, refs(umd).p; of gRefCOCO grefs(unc).json
    root/refcoco/instances.json       masks, in COCO's format
    root/images/mscoco/images/train2014/COCO_train2014_*.jpg

Sources: Yu et al., "Modeling Context in Referring Expressions" (ECCV 2016), and the REFER API of its authors; Mao et
al., "Generation and Comprehension of Unambiguous Object Descriptions" (CVPR 2016); Liu et al., "GRES: Generalized
Referring Expression Segmentation" (CVPR 2023).
"""

import json
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .masks import decode_segmentation, encode_mask
from .refshapes import RefShapes
from .samples import BrokenAnnotation, Referring, ReferringImage, broken_image, is_id, read_image, read_json, refer

PARTITIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "refcoco": {"unc": ("val", "testA", "testB"), "google": ("val",)},
    "refcoco+": {"unc": ("val", "testA", "testB")},
    "refcocog": {"umd": ("val", "test"), "google": ("val",)},
    "grefcoco": {"unc": ("val", "testA", "testB")},
}
"""Datasets, their partitions (the first is the default) and the splits that papers report."""

# Where the images may lie, seen from the root
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014", "coco_2014/train2014")


class _PlainUnpickler(pickle._Unpickler):
    """
    Admits lists, dictionaries, texts and numbers, and nothing that could run code. Python's own: the one in C takes
    gigabytes for a number in a file of ten bytes.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, but only plain containers are allowed")


def load_refcoco(root: str | Path, name: str, partition: str, split: str) -> list[ReferringImage]:
    """
    A split, one entry per image in order of its first expression.

    Args:
        root: the folder that holds the datasets and `images`.
        name (`str`): a key of [`PARTITIONS`].
        partition (`str`): `"unc"`, `"umd"` or `"google"`.
        split (`str`): such as `"testA"`; `"train"` too.

    Raises:
        ValueError: a file is missing or cannot be read, or there is no such split in it.
    """
    folder = Path(root) / name
    refs_path = folder / (f"grefs({partition}).json" if name == "grefcoco" else f"refs({partition}).p")
    refs, instances_path = _read(refs_path), folder / "instances.json"
    instances = _read(instances_path)
    listed: list[Any] = [instances.get(k) for k in ("annotations", "images")] if isinstance(instances, dict) else []
    if not listed or not all(isinstance(found, list) for found in (refs, *listed)):
        raise ValueError(f"'{refs_path}' and '{instances_path}' are not in REFER's layout.")
    annotations, images = (
        {one["id"]: one for one in found if isinstance(one, dict) and isinstance(one.get("id"), int)}
        for found in listed
    )
    # What does not say to which split it belongs is broken in each
    chosen = [ref for ref in refs if not isinstance(ref, dict) or ref.get("split", split) == split]
    if not chosen:
        splits = sorted({str(ref["split"]) for ref in refs})
        raise ValueError(f"'{refs_path}' has no split {split!r}; it has {', '.join(splits)}.")
    image_folder = next((Path(root) / name for name in _IMAGE_FOLDERS if (Path(root) / name).is_dir()), None)
    if image_folder is None:
        raise ValueError(
            f"There is no folder of images in '{root}'; put COCO's into one of {', '.join(_IMAGE_FOLDERS)}."
        )

    expressions: dict[int, list[Referring]] = {}
    unread = []
    for number, ref in enumerate(chosen):
        try:
            name = f"'{refs_path}': ref {ref['ref_id']}"
            load_mask = partial(_load_mask, ref, _annotation_ids(ref), annotations, images, instances_path)
            asked = [
                refer(name, f"{ref['ref_id']}-{sentence['sent_id']}", sentence["sent"], load_mask)
                for sentence in ref["sentences"]
            ]
            if not (is_id(ref["image_id"]) and is_id(ref["ref_id"])):
                raise TypeError
            expressions.setdefault(ref["image_id"], []).extend(asked)
        except (KeyError, TypeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else "is not in REFER's layout"
            unread.append(broken_image(f"ref {number}", f"'{refs_path}': entry {number} of {split!r} {reason}."))
    return [
        ReferringImage(str(number), partial(_load_image, image_folder, images, number, instances_path), tuple(asked))
        for number, asked in expressions.items()
        if asked
    ] + unread


def write_refcoco(root: str | Path, scenes: Mapping[str, RefShapes], name: str = "refcoco") -> None:
    """
    Writes RefShapes in RefCOCO's layout (UNC partition), with lossless images.

    Args:
        root: the folder to write into.
        scenes: RefShapes by the split to write.
        name (`str`): the dataset whose folder it takes.

    Raises:
        ValueError: there is a dataset of that name already.
    """
    folder, image_folder = Path(root) / name, Path(root) / _IMAGE_FOLDERS[0]
    if folder.exists() or image_folder.exists():
        raise ValueError(f"'{root}' holds a dataset already ({name} or {_IMAGE_FOLDERS[0]}); name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    image_folder.mkdir(parents=True, exist_ok=True)
    refs: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    sentences = 0
    for split, shapes in scenes.items():
        for sample in (shapes[i] for i in range(len(shapes))):
            height, width = sample.image.shape[:2]
            image_id = len(images) + 1
            file_name = f"COCO_train2014_{image_id:012d}.png"
            Image.fromarray(sample.image).save(image_folder / file_name)
            images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
            first = len(annotations) + 1
            for number, mask in enumerate(sample.object_masks):
                annotations.append(
                    {"id": first + number, "image_id": image_id, "category_id": 1, "segmentation": encode_mask(mask)}
                )
            for expression in sample.expressions:
                sentences += 1
                words = expression.text.split()
                said = {"sent_id": sentences, "sent": expression.text, "raw": expression.text, "tokens": words}
                named = [first + target for target in expression.targets]
                # As gRefCOCO writes it where not exactly one object is named
                meant = {"ann_id": named[0]} if len(named) == 1 else {"ann_id": named or [-1], "no_target": not named}
                refs.append(
                    {"ref_id": len(refs) + 1, "image_id": image_id}
                    | meant
                    | {"split": split, "file_name": file_name, "category_id": 1}
                    | {"sentences": [said], "sent_ids": [sentences]}
                )
    with open(folder / "refs(unc).p", "wb") as file:
        pickle.dump(refs, file, protocol=2)
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")


def _read(path: Path) -> Any:
    """A pickled or JSON file; the message of the ValueError says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'; --data-root names the folder that holds {path.parent.name!r}.")
    if path.suffix == ".json":
        return read_json(path)
    try:
        with open(path, "rb") as file:
            # The official files were pickled by Python 2
            return _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # the unpickler raises nearly anything on a damaged file
        raise ValueError(f"'{path}' cannot be read: {error}.") from error


def _annotation_ids(ref: dict[str, Any]) -> list[int]:
    """Ids of the objects that are meant: one, or in gRefCOCO several or none (which is written as -1)."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [] if ref.get("no_target") else [number for number in ids if number != -1]


def _load_mask(
    ref: dict[str, Any], ids: list[int], annotations: dict[int, Any], images: dict[int, Any], path: Path
) -> np.ndarray | None:
    masks = []
    for number in ids:
        try:
            image = images[ref["image_id"]]
            masks.append(decode_segmentation(annotations[number]["segmentation"], image["height"], image["width"]))
        except (KeyError, ValueError, TypeError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else error
            raise BrokenAnnotation(f"'{path}': annotation {number} of ref {ref['ref_id']}: {reason}.") from error
    return np.maximum.reduce(masks) if masks else None


def _load_image(folder: Path, images: dict[int, Any], number: int, path: Path) -> Image.Image:
    file_name = images.get(number, {}).get("file_name")
    if not isinstance(file_name, str) or "\0" in file_name:
        raise BrokenAnnotation(f"'{path}': there is no image {number}, or it has no file name.")
    return read_image(folder / file_name, f"image {number}")


__all__ = ["PARTITIONS", "load_refcoco", "write_refcoco"]
