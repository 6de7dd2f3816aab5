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
"""ReasonSeg, and tables of one's own in Parquet and COCO JSON."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from litelvlm.data.masks import encode_mask
from litelvlm.data.registry import load_split, splits_of
from litelvlm.data.samples import IGNORED, BrokenAnnotation

SQUARE = np.zeros((8, 10), np.uint8)
SQUARE[2:5, 3:7] = 1


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def reasonseg(tmp_path):
    folder = tmp_path / "ReasonSeg" / "val"
    folder.mkdir(parents=True)

    def write(name, text, is_sentence, shapes, encoding="utf-8"):
        Image.new("RGB", (10, 8)).save(folder / f"{name}.jpg")
        data = {"text": [text, "another"], "is_sentence": is_sentence, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)

    square = [[3, 2], [6, 2], [6, 4], [3, 4]]
    write("a", "the one that thinks", False, [{"label": "target", "points": square}])
    inner = {"label": "ignore", "points": [[4, 3], [5, 3], [5, 3]]}
    write("b", "Who serves in the café?", True, [inner, {"label": "target", "points": square}], "cp1252")
    Image.new("RGB", (10, 8)).save(folder / "c.jpg")
    return tmp_path


def test_reasonseg_asks_the_first_text_and_leaves_ignored_areas_out(reasonseg):
    phrase, sentence, unread = load_split("reasonseg", "val", reasonseg)
    assert phrase.expressions[0].text == "the one that thinks" and phrase.expressions[0].question_template is None
    assert np.array_equal(phrase.expressions[0].load_mask(), SQUARE)
    (asked,) = sentence.expressions
    assert asked.text == "Who serves in the café?" and asked.question_template.startswith("{} Please")
    assert asked.load_mask()[3, 4:6].tolist() == [IGNORED] * 2 and (asked.load_mask() == 1).sum() == 10
    with pytest.raises(BrokenAnnotation, match=r"c\.json' cannot be read"):
        unread.load_image()
    with pytest.raises(ValueError, match="There is no image in"):
        load_split("reasonseg", "test", reasonseg)


def test_parquet_with_images_run_lengths_lists_and_no_target(tmp_path):
    datasets = pytest.importorskip("datasets")
    image = png(np.zeros((8, 10, 3), np.uint8))
    for i, (text, mask) in enumerate([("one", png(SQUARE * 255)), ("none", None)]):
        datasets.Dataset.from_list([{"image": image, "text": text, "mask": mask}]).to_parquet(
            tmp_path / f"val-0000{i}-of-00002.parquet"
        )
    runs = encode_mask(SQUARE)
    row = {"image": image, "text": ["a", "b"], "mask": [runs, None]}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "test.parquet")
    assert splits_of(str(tmp_path)) == ("test", "val")

    first, second = load_split(str(tmp_path), "val")
    assert first.load_image().size == (10, 8) and first.expressions[0].text == "one"
    assert np.array_equal(first.expressions[0].load_mask(), SQUARE)
    assert second.expressions[0].load_mask() is None
    (both,) = load_split(str(tmp_path / "test.parquet"), "test")
    assert [e.text for e in both.expressions] == ["a", "b"]
    assert np.array_equal(both.expressions[0].load_mask(), SQUARE) and both.expressions[1].load_mask() is None


def test_parquet_as_datasets_writes_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "mask": datasets.Image()}
    )
    row = {"image": Image.new("RGB", (10, 8)), "text": "it", "mask": Image.fromarray(SQUARE * 255)}
    datasets.Dataset.from_list([row], features=features).to_parquet(tmp_path / "val.parquet")
    (entry,) = load_split(str(tmp_path), "val")
    assert entry.load_image().size == (10, 8) and np.array_equal(entry.expressions[0].load_mask(), SQUARE)


def test_parquet_that_lacks_a_column_or_holds_a_broken_cell_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"image": png(SQUARE), "text": "a"}]).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match=r"bare\.parquet' has no column mask"):
        load_split(str(tmp_path), "bare")
    cell = {"bytes": b"no image", "path": None}
    datasets.Dataset.from_list([{"image": cell, "text": "a", "mask": cell}]).to_parquet(tmp_path / "val.parquet")
    (entry,) = load_split(str(tmp_path), "val")
    with pytest.raises(BrokenAnnotation, match=r"val\.parquet': row 0"):
        entry.load_image()
    with pytest.raises(BrokenAnnotation, match=r"val\.parquet': row 0: mask 0"):
        entry.expressions[0].load_mask()


def test_coco_json_with_texts(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (10, 8)).save(tmp_path / "images" / "a.png")
    images = [{"id": 3, "file_name": "a.png", "height": 8, "width": 10}]
    annotations = [
        {"id": 1, "image_id": 3, "segmentation": [[3, 2, 7, 2, 7, 5, 3, 5]], "text": "it"},
        {"id": 2, "image_id": 3, "segmentation": [], "text": "nothing"},
        {"id": 5, "image_id": 4, "segmentation": [], "text": "lost"},
    ]
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    entry, lost = load_split(str(tmp_path), "val")
    assert entry.load_image().size == (10, 8)
    assert np.array_equal(entry.expressions[0].load_mask(), SQUARE) and entry.expressions[1].load_mask() is None
    with pytest.raises(BrokenAnnotation, match=r"val\.json': there is no image 4"):
        lost.load_image()
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(ValueError, match=r"test\.json' is not in COCO's format"):
        load_split(str(tmp_path), "test")
    with pytest.raises(ValueError, match="splits in the folder: test, val"):
        load_split(str(tmp_path), "train")
    with pytest.raises(ValueError, match="There is no dataset 'nowhere'; allowed are refshapes, refcoco,"):
        load_split("nowhere", "val")


@pytest.mark.parametrize("number", ["", True, None, 1.5])
def test_what_is_no_id_is_a_broken_annotation(tmp_path, number):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 10}]
    for ids in ({"id": number, "image_id": 1}, {"id": 1, "image_id": number}):
        annotations = [ids | {"text": "it", "segmentation": []}]
        (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
        (entry,) = load_split(str(tmp_path), "val")
        with pytest.raises(BrokenAnnotation, match="annotation 0 of the list has no `id` and `image_id`"):
            entry.load_image()


@pytest.mark.parametrize("text", [None, 5, "", "  ", "\ud83d"])
def test_texts_that_are_none_are_broken_annotations(tmp_path, text):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    images = [{"id": 3, "file_name": "a.png", "height": 8, "width": 10}]
    annotations = [
        {"id": 1, "image_id": 3, "segmentation": [], "text": text},
        {"id": 2, "image_id": 3, "segmentation": [], "text": "it"},
    ]
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (entry,) = load_split(str(tmp_path), "val")
    with pytest.raises(BrokenAnnotation, match=r"val\.json': annotation 1 has the text .*: (allowed|it holds)"):
        entry.expressions[0].load_mask()
    assert entry.expressions[1].load_mask() is None


@pytest.mark.parametrize("column", [[None, "it"], [3, 4], [[], ["it"]], [["it", None], ["it", "two"]]])
def test_texts_of_parquet_that_are_none_are_broken_annotations(tmp_path, column):
    datasets = pytest.importorskip("datasets")
    rows = [{"image": png(SQUARE), "text": text, "mask": None} for text in column]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "val.parquet")
    entry = load_split(str(tmp_path), "val")[0]
    with pytest.raises(BrokenAnnotation, match=r"val\.parquet': row 0(: text \d has the text|  ?has no text)"):
        entry.expressions[-1].load_mask()


def test_masks_of_parquet_as_rows_of_booleans_are_masks(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"image": png(SQUARE), "text": "it", "mask": (SQUARE > 0).tolist()}]
    rows += [{"image": png(SQUARE), "text": "it", "mask": (SQUARE[:4] > 0).tolist()}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "val.parquet")
    whole, half = load_split(str(tmp_path), "val")
    assert np.array_equal(whole.expressions[0].load_mask(), SQUARE)
    with pytest.raises(BrokenAnnotation, match=r"row 1: mask 0: 4 rows of pixels for an image 8 high"):
        half.expressions[0].load_mask()


def test_list_of_texts_with_another_number_of_masks_is_broken(tmp_path):
    datasets = pytest.importorskip("datasets")
    row = {"image": png(SQUARE), "text": ["a"], "mask": [encode_mask(SQUARE), encode_mask(SQUARE)]}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(BrokenAnnotation, match="1 texts need a list of as many masks"):
        load_split(str(tmp_path), "val")[0].expressions[0].load_mask()


@pytest.mark.parametrize("other", [1, "1"])
def test_ids_that_coco_gives_twice_are_broken_beside_sound_ones(tmp_path, other):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (10, 8)).save(tmp_path / name)
    images = [{"id": i, "file_name": name, "height": 8, "width": 10} for i, name in ((1, "a.png"), (other, "b.png"))]
    images += [{"id": 2, "file_name": "a.png", "height": 8, "width": 10}]
    square = [[3, 2, 7, 2, 7, 5, 3, 5]]
    annotations = [
        {"id": i, "image_id": image, "segmentation": square, "text": "it"}
        for i, image in ((5, 1), (6, 2), (1, 2), (other, 2))
    ]
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    twice, sound = load_split(str(tmp_path), "val")
    with pytest.raises(BrokenAnnotation, match=r"val\.json': image 1: several images have this id"):
        twice.load_image()
    assert sound.load_image().size == (10, 8) and np.array_equal(sound.expressions[0].load_mask(), SQUARE)
    for expression in sound.expressions[1:]:
        with pytest.raises(BrokenAnnotation, match=r"val\.json': annotation 1: several annotations have this id"):
            expression.load_mask()


@pytest.mark.parametrize(
    "annotation", [None, 7, [], {}, {"id": 1}, {"id": [1], "image_id": 3}, {"id": 1, "image_id": {}, "text": "it"}]
)
def test_coco_annotations_of_another_shape_are_broken_beside_sound_ones(tmp_path, annotation):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    images = [None, {"id": 3, "file_name": "a.png", "height": 8, "width": 10}, {"id": 4, "file_name": 5}]
    sound = {"id": 2, "image_id": 3, "segmentation": None, "text": "it"}
    lost = {"id": 5, "image_id": 4, "segmentation": None, "text": "it"}
    data = {"images": images, "annotations": [annotation, sound, lost]}
    (tmp_path / "val.json").write_text(json.dumps(data))
    entry, nameless, unread = load_split(str(tmp_path), "val")
    assert entry.load_image().size == (10, 8) and entry.expressions[0].load_mask() is None
    with pytest.raises(BrokenAnnotation, match="image 4 has the file name 5"):
        nameless.load_image()
    with pytest.raises(BrokenAnnotation, match=r"annotation 0 of the list has no `id` and `image_id`"):
        unread.load_image()


@pytest.mark.parametrize(
    "content", ["[]", "5", "null", '{"images": 3, "annotations": []}', "{", "[" * 10000, '"\\u00']
)
def test_json_of_another_shape_is_named(tmp_path, content):
    (tmp_path / "val.json").write_text(content)
    with pytest.raises(ValueError, match=r"val\.json' (is not in COCO's format|cannot be read)"):
        load_split(str(tmp_path), "val")


def test_coco_annotation_without_a_segmentation_is_broken_and_not_without_a_target(tmp_path):
    data = {
        "images": [{"id": 3, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": [{"id": 1, "image_id": 3, "text": "it"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(data))
    with pytest.raises(BrokenAnnotation, match="annotation 1: there is no 'segmentation'"):
        load_split(str(tmp_path), "val")[0].expressions[0].load_mask()


@pytest.mark.parametrize("change", [{"text": [None]}, {"text": [5]}, {"text": ""}, {"shapes": [None]}, {"shapes": 3}])
def test_reasonseg_of_another_shape_is_broken(reasonseg, change):
    path = reasonseg / "ReasonSeg" / "val" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BrokenAnnotation, match=r"a\.json'"):
        load_split("reasonseg", "val", reasonseg)[0].expressions[0].load_mask()


def test_reasonseg_draws_a_rectangle_as_one(reasonseg):
    path = reasonseg / "ReasonSeg" / "val" / "a.json"
    shape = {"label": "target", "points": [[3, 2], [6, 4]], "shape_type": "rectangle"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shapes": [shape]}))
    assert np.array_equal(load_split("reasonseg", "val", reasonseg)[0].expressions[0].load_mask(), SQUARE)
