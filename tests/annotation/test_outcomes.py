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

import csv
import json
import shutil

import pytest
from PIL import ExifTags, Image

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.annotation import Annotator, Request
from litelvlm.annotation.parts import Parts
from litelvlm.annotation.sources import open_source
from litelvlm.commands.main import main

parquet = pytest.importorskip("pyarrow.parquet")
coco = pytest.importorskip("pycocotools.coco")

ANSWER = ["--answer", "It is [SEG].", "--device", "cpu", "--json"]
RUNS = {"size": [4, 4], "counts": "04<"}
ROW = {
    "image": "a.png",
    "answer": "It is [SEG].",
    "reason": None,
    "num_retained_tokens": 9,
    "model": "m",
    "revision": "r",
}
ROW |= {"size": [4, 4], "score": 0.5}


def write_parts(output, rows, errors=()):
    parts = Parts(output, {"model": "m"})
    parts.open()
    parts.write(0, [Request("a.png", ["x"], "a.png")], rows, list(errors))
    return parts.assemble(1)


def test_coco_tools_read_every_annotation_of_an_output_with_texts_without_a_mask(tmp_path):
    nothing = dict.fromkeys(("segmentation", "bbox", "area", "score")) | {"reason": "the answer holds no [SEG]"}
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
    said = {"text": "no cat", "answer": "None.", "reason": "the answer holds no [SEG]"}
    assert data.dataset["without_mask"] == [{"image_id": 1} | said, {"image_id": 2} | said]

    write_parts(tmp_path / "out.parquet", rows)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["segmentation"] is None for row in table] == [True, False, True, False]
    assert [row["reason"] is None for row in table] == [False, True, False, True]


def test_coco_tools_read_an_output_without_any_mask(tmp_path):
    row = ROW | {"text": "no cat"} | dict.fromkeys(("segmentation", "bbox", "area", "score"))
    write_parts(tmp_path / "out.json", [row])
    data = coco.COCO(str(tmp_path / "out.json"))
    assert data.getAnnIds(areaRng=[0, 1e9]) == [] and len(data.dataset["without_mask"]) == 1


@pytest.fixture
def table(tmp_path):
    """Two images beside a folder with a table of three texts about them."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "lists").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(EXAMPLE_IMAGE, tmp_path / "photos" / name)
    with open(tmp_path / "lists" / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "text"), ("a.png", "x"), ("a.png", "y"), ("b.png", "z")])
    return tmp_path / "lists" / "table.csv"


@pytest.mark.parametrize("name", ["out.parquet", "out.json"])
def test_an_annotation_whose_images_all_fail_is_an_error_and_can_be_started_again(name, table, tmp_path, capsys):
    output = tmp_path / name
    assert main(["annotate", str(table), str(output), *ANSWER]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "All 3 texts failed, the first (image 'a.png') with: There is no file" in error
    assert f"'{tmp_path / f'{name}.errors.jsonl'}' names all" in error
    assert len((tmp_path / f"{name}.errors.jsonl").read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists", f"{name}.errors.jsonl", "photos"]

    assert main(["annotate", str(table), str(output), "--data-root", str(tmp_path / "photos"), *ANSWER]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    assert output.exists() and not (tmp_path / f"{name}.errors.jsonl").exists()


def test_an_annotation_begun_anew_that_fails_wholly_leaves_the_earlier_output(table, tmp_path, capsys):
    output = tmp_path / "out.parquet"
    output.write_bytes(b"earlier")
    assert main(["annotate", str(table), str(output), "--force", *ANSWER]) == 2
    assert "All 3 texts failed" in capsys.readouterr().err and output.read_bytes() == b"earlier"


def test_outputs_of_one_stem_have_errors_of_their_own(tmp_path):
    for name, errors in (("out.parquet", [{"image": "a.png", "text": "x", "error": "e"}]), ("out.json", [])):
        write_parts(
            tmp_path / name, [ROW | {"text": "the dog", "segmentation": RUNS, "bbox": [0, 0, 1, 4], "area": 4}], errors
        )
    assert (tmp_path / "out.parquet.errors.jsonl").exists() and not (tmp_path / "out.json.errors.jsonl").exists()


@pytest.mark.parametrize("texts", [[""], ["the dog", " \t"]])
def test_an_empty_text_of_the_command_line_is_refused_before_anything_is_made(texts, table, tmp_path, capsys):
    assert main(["annotate", str(tmp_path / "photos"), str(tmp_path / "out.json"), "--text", *texts]) == 2
    assert "--text is empty; say what to segment." in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("text", ["", " \n", None, []])
def test_a_text_of_a_table_that_says_nothing_is_an_error_row(text, tmp_path):
    lines = [{"image": str(EXAMPLE_IMAGE), "text": text}, {"image": str(EXAMPLE_IMAGE), "text": "x"}]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    requests = list(open_source(str(tmp_path / "table.jsonl")).requests)
    model, processor = load_tiny()
    prepared = Annotator(model, processor, answer="It is [SEG].").prepare(requests)
    assert [asked for _, asked in prepared.asked] == ["x"]
    assert [(error["text"], error["error"]) for error in prepared.errors] == [
        (text, "allowed are texts that are not empty")
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-", "annotate reads no standard input"),
        ("empty", "'empty' holds no images"),
        ("notes", "'notes' holds no images"),
        ("photo.png", "'photo.png' is one image; use litelvlm segment"),
        ("https://host/photo.png", "'https://host/photo.png' is one image; use litelvlm segment"),
        ("notes/readme.md", "There is no folder, list, table or data set 'notes/readme.md'"),
        ("./nosuch", "There is no folder './nosuch'"),
        ("nosuch/", "There is no folder 'nosuch/'"),
    ],
)
def test_an_input_that_is_no_source_is_told_in_a_line(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").touch()
    shutil.copy(EXAMPLE_IMAGE, tmp_path / "photo.png")
    assert main(["annotate", name, "out.json", "--text", "a", *ANSWER]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_rows_name_the_model_without_the_folders_of_this_machine(table, tmp_path, capsys):
    arguments = ["--data-root", str(tmp_path / "photos"), *ANSWER]
    for name in ("out.parquet", "more.json"):
        assert main(["annotate", str(table), str(tmp_path / name), *arguments]) == 0
    assert set(parquet.read_table(tmp_path / "out.parquet")["model"].to_pylist()) == {"litelvlm-tiny"}
    assert json.loads((tmp_path / "more.json").read_text())["info"]["model"] == "litelvlm-tiny"
    model, processor = load_tiny()
    for given, written in {"org/model": "org/model", "": ""}.items():  # "" is a model that was not loaded
        model.name_or_path = given
        assert Annotator(model, processor).origin["model"] == written


def test_photos_of_subfolders_are_named_from_the_folder_and_turned_upright(tmp_path):
    (tmp_path / "holidays").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn
    Image.open(EXAMPLE_IMAGE).convert("RGB").resize((60, 40)).save(tmp_path / "holidays" / "a.jpg", exif=exif)
    model, processor = load_tiny()
    annotator = Annotator(model, processor, answer="It is [SEG].")
    (row,) = annotator.annotate(annotator.prepare(list(open_source(str(tmp_path), ["x"]).requests)))
    assert (row["image"], row["size"], row["segmentation"]["size"]) == ("holidays/a.jpg", [60, 40], [60, 40])
