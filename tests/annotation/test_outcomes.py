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
"""What `litelvlm annotate` writes and says where masks, images or texts are missing."""


import pytest

from litelvlm.annotation import Request
from litelvlm.annotation.parts import Parts

parquet = pytest.importorskip("pyarrow.parquet")
coco = pytest.importorskip("pycocotools.coco")

ANSWER = ["--answer", "It is [SEG].", "--device", "cpu", "--json"]
RUNS = {"size": [4, 4], "counts": "04<"}
ROW = {"image": "a.png", "answer": "It is [SEG].", "num_retained_tokens": 9, "model": "m", "revision": "r"}
ROW |= {"size": [4, 4], "score": 0.5}


def write_parts(output, rows, errors=()):
    parts = Parts(output, {"model": "m"})
    parts.open()
    parts.write(0, [Request("a.png", ["x"], "a.png")], rows, list(errors))
    return parts.assemble(1)


def test_coco_tools_read_every_annotation_of_an_output_with_texts_without_a_mask(tmp_path):
    nothing = dict.fromkeys(("segmentation", "bbox", "area", "score"))
    rows = [
        ROW | {"text": "no cat", "answer": "None."} | nothing,
        ROW | {"text": "the dog", "segmentation": RUNS, "bbox": [0, 0, 1, 4], "area": 4},
        ROW | {"image": "b.png", "text": "no cat", "answer": "None."} | nothing,
        ROW | {"image": "b.png", "text": "the dog", "segmentation": {"size": [4, 4], "counts": "`0"}}
        | {"bbox": None, "area": 0},
    ]  # fmt: skip
    assert write_parts(tmp_path / "out.json", rows) == {"rows": 4, "masks": 2, "errors": 0}
    data = coco.COCO(str(tmp_path / "out.json"))
    found = data.loadAnns(data.getAnnIds(areaRng=[0, 1e9]))
    assert [data.annToMask(annotation).sum() for annotation in data.anns.values()] == [4, 0]
    assert [annotation["area"] for annotation in found] == [4]  # COCO's range is open
    assert [annotation["id"] for annotation in data.anns.values()] == [1, 2]
    assert all(len(annotation["bbox"]) == 4 for annotation in data.anns.values())
    said = {"text": "no cat", "answer": "None."}
    assert data.dataset["without_mask"] == [{"image_id": 1} | said, {"image_id": 2} | said]

    write_parts(tmp_path / "out.parquet", rows)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["segmentation"] is None for row in table] == [True, False, True, False]


def test_coco_tools_read_an_output_without_any_mask(tmp_path):
    row = ROW | {"text": "no cat"} | dict.fromkeys(("segmentation", "bbox", "area", "score"))
    write_parts(tmp_path / "out.json", [row])
    data = coco.COCO(str(tmp_path / "out.json"))
    assert data.getAnnIds(areaRng=[0, 1e9]) == [] and len(data.dataset["without_mask"]) == 1
