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
"""Masks come back from the formats of others as they went in."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from litelvlm.data.masks import decode_segmentation, draw_labelme_shape
from litelvlm.data.tables import load_tables
from litelvlm.outputs import to_coco, to_dataframe, to_labelme, to_supervision, to_yolo

pytest.importorskip("contourpy")
coco_masks = pytest.importorskip("pycocotools.mask")

# A folder of photographs with LabelMe's and COCO's files beside them
PHOTOS = Path(os.environ.get("LITELVLM_PHOTOS", "photos"))
with_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="LITELVLM_PHOTOS names no folder of photographs")


def instance(mask, label="the ring"):
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else None
    return {"mask": torch.from_numpy(mask), "score": 0.9, "predicted_iou": 0.8, "label": label, "box": box}


def iou(one, two):
    return (one & two).sum() / (one | two).sum()


def drawn(draw_it, size=(60, 40)):
    image = Image.new("L", size)
    draw_it(ImageDraw.Draw(image))
    return np.asarray(image) > 0


def hard_masks():
    """Holes, parts within holes, parts that touch at a corner, lines, single pixels, edges of the image, noise."""
    rings = [(5, 5, 50, 35), (10, 9, 45, 31), (15, 14, 40, 26), (20, 17, 35, 23)]
    yield "rings", drawn(lambda d: [d.ellipse(box, fill=(i + 1) % 2) for i, box in enumerate(rings)])
    yield "corners", drawn(lambda d: [d.rectangle((9 * i, 9 * i, 9 * i + 8, 9 * i + 8), fill=1) for i in range(4)])
    yield "everything", np.ones((7, 9), bool)
    yield "pixels", drawn(lambda d: d.point([(0, 0), (59, 39), (30, 20)], fill=1))
    yield "lines", drawn(lambda d: [d.line((3, 3, 50, 3), fill=1), d.line((3, 8, 40, 38), fill=1)])
    random = np.random.default_rng(0)
    yield from ((f"noise {i}", random.random((23, 31)) > share) for i, share in enumerate((0.1, 0.5, 0.9)))


MASKS = dict(hard_masks())


def from_coco(data):
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    masks = []
    for annotation in data["annotations"]:
        segmentation, size = annotation["segmentation"], sizes[annotation["image_id"]]
        if isinstance(segmentation, list):
            segmentation = coco_masks.merge(coco_masks.frPyObjects(segmentation, *size))
        masks.append(coco_masks.decode(segmentation) > 0)
    return masks


def from_yolo(text, size):
    for line in text.splitlines():
        points = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (size[1], size[0])
        yield coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects([points.flatten().tolist()], *size))) > 0


def from_labelme(file):
    masks = {}
    for shape in file["shapes"]:
        layer = draw_labelme_shape(shape, file["imageHeight"], file["imageWidth"])
        masks[shape["group_id"]] = masks.get(shape["group_id"], False) | layer
    return list(masks.values())


@pytest.mark.parametrize("name", MASKS)
def test_masks_with_holes_and_parts_come_back_whole_from_every_format(name):
    mask = MASKS[name]
    given, size = [instance(mask)], mask.shape
    for polygons in (False, True):
        data = to_coco([given], [size], ["a.png"], polygons)
        assert isinstance(data["annotations"][0]["segmentation"], list) is polygons
        assert np.array_equal(from_coco(data)[0], mask)
    assert [iou(found, mask) for found in from_yolo(to_yolo(given, size, ["the ring"]), size)] == [1]
    assert [iou(found, mask) for found in from_labelme(to_labelme(given, size, "a.png"))] == [1]


def test_coco_numbers_images_by_name_and_categories_by_label_and_pycocotools_reads_it(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    ring, pixels = MASKS["rings"], MASKS["pixels"]
    results = [[instance(ring)], [instance(pixels, "dots"), instance(ring)], [], [instance(ring[:9, :9], "dots")]]
    sizes = [(40, 60), (40, 60), (40, 60), (9, 9)]
    data = json.loads(json.dumps(to_coco(results, sizes, ["a.png", "a.png", "c.png", "b.png"])))
    assert [image["file_name"] for image in data["images"]] == ["a.png", "c.png", "b.png"]
    assert [a["image_id"] for a in data["annotations"]] == [1, 1, 1, 3]
    assert [a["category_id"] for a in data["annotations"]] == [1, 2, 1, 2]
    (tmp_path / "val.json").write_text(json.dumps(data))
    read = coco.COCO(str(tmp_path / "val.json"))
    assert np.array_equal(read.annToMask(data["annotations"][0]), ring)
    assert data["annotations"][0]["bbox"] == coco_masks.toBbox(data["annotations"][0]["segmentation"]).tolist()
    first, last = load_tables(tmp_path / "val.json", "val")  # it is a table to evaluate on, too
    assert [e.text for e in first.expressions] == ["the ring", "dots", "the ring"] and len(last.expressions) == 1


def test_empty_masks_are_run_lengths_in_coco_and_are_left_out_where_there_is_only_an_outline():
    given = [instance(np.zeros((4, 5), bool))]
    assert not from_coco(to_coco([given], [(4, 5)], ["a.png"], polygons=True))[0].any()
    assert to_yolo(given, (4, 5), ["the ring"]) == "" and to_labelme(given, (4, 5), "a.png")["shapes"] == []


def test_dataframe_has_a_row_for_each_mask_and_columns_without_any():
    pytest.importorskip("pandas")
    frame = to_dataframe([[instance(MASKS["rings"])], []], [(40, 60), (4, 5)], ["a.png", "b.png"])
    assert len(frame) == 1 and frame.image[0] == "a.png" and frame.area[0] == MASKS["rings"].sum()
    assert np.array_equal(coco_masks.decode(frame.segmentation[0]), MASKS["rings"])
    assert list(to_dataframe([], [], []).columns) == list(frame.columns)


def test_supervision_gets_masks_boxes_scores_and_labels():
    supervision = pytest.importorskip("supervision")
    detections = to_supervision([instance(MASKS["rings"]), instance(MASKS["pixels"], "dots")])
    assert isinstance(detections, supervision.Detections) and np.array_equal(detections.mask[0], MASKS["rings"])
    assert detections.class_id.tolist() == [0, 1] and detections["class_name"].tolist() == ["the ring", "dots"]
    assert detections.confidence.tolist() == [0.9, 0.9] and detections.xyxy[1].tolist() == [0, 0, 60, 40]
    assert len(to_supervision([])) == 0


def test_masks_of_another_size_unknown_classes_and_missing_names_are_refused():
    given = [instance(MASKS["rings"])]
    for write in (
        lambda s: to_yolo(given, s, ["the ring"]),
        lambda s: to_labelme(given, s, "a"),
        lambda s: to_coco([given], [s], ["a"]),
    ):
        with pytest.raises(ValueError, match=r"A mask has shape \(40, 60\), but its image is 60 high and 40 wide"):
            write((60, 40))
    with pytest.raises(ValueError, match="'the ring' is not among `classes`: a square"):
        to_yolo(given, (40, 60), ["a square"])
    with pytest.raises(ValueError, match="There are 1 results, 1 sizes and 0 file names"):
        to_coco([given], [(40, 60)], [])


@with_photos
def test_masks_of_photographs_come_back_whole_from_every_format():
    masks = []
    for path in sorted(PHOTOS.glob("labelme/2*.json")):
        file = json.loads(path.read_text())
        size = file["imageHeight"], file["imageWidth"]
        masks += [draw_labelme_shape(shape, *size) for shape in file["shapes"]]
    for path in sorted(PHOTOS.glob("coco/*.annotations.json")):
        with Image.open(path.with_name(path.name.replace(".annotations.json", ".png"))) as image:
            size = image.size[::-1]
        masks += [decode_segmentation(a["segmentation"], *size) > 0 for a in json.loads(path.read_text())]
    assert len(masks) > 10
    for mask in masks:
        given, size = [instance(mask)], mask.shape
        for polygons in (False, True):
            assert np.array_equal(from_coco(to_coco([given], [size], ["a"], polygons))[0], mask)
        assert [iou(found, mask) for found in from_yolo(to_yolo(given, size, ["the ring"]), size)] == [1]
        assert [iou(found, mask) for found in from_labelme(to_labelme(given, size, "a"))] == [1]
