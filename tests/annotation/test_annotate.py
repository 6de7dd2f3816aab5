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
"""`litelvlm annotate`: every row once, whatever happens, and the same masks as `segment` gives."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import litelvlm
from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.annotation import COLUMNS, Annotator, Request
from litelvlm.annotation.parts import Parts
from litelvlm.annotation.sources import open_source
from litelvlm.commands.main import main
from litelvlm.data.masks import decode_segmentation
from litelvlm.data.refcoco import write_refcoco
from litelvlm.data.refshapes import RefShapes
from litelvlm.data.tables import load_tables

parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pycocotools.mask")

ANSWER = ["--answer", "It is [SEG].", "--device", "cpu", "--json"]
SIZES = [(128, 128), (200, 90), (64, 150), (128, 128), (90, 90)]


@pytest.fixture
def folder(tmp_path):
    """Five images of four sizes, the second of them broken, and a table of texts about them."""
    (tmp_path / "images").mkdir()
    example = Image.open(EXAMPLE_IMAGE)
    for i, size in enumerate(SIZES):
        example.resize(size).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    with open(tmp_path / "images" / "table.csv", "w", newline="") as file:
        rows = [(f"{i}.png", text) for i in range(5) for text in ("the red circle", "the blue square")[: 1 + i % 2]]
        csv.writer(file).writerows([("image", "text"), *rows, ("4.png", " ")])
    return tmp_path


def asked(path):
    return [(row["image"], row["text"]) for row in parquet.read_table(path).to_pylist()]


def test_rows_of_a_batch_are_those_of_a_loop_over_segment():
    model, processor = litelvlm.load_tiny()
    example = Image.open(EXAMPLE_IMAGE).convert("RGB")
    images = [example, example.resize((200, 90)), example.resize((200, 90))]
    texts = ["the red circle", ["the blue square", "the red circle that is not there at all"], "the red circle"]
    annotator = Annotator(model, processor, max_new_tokens=8, batch_size=3)
    columns = annotator({"image": images, "text": texts, "name": np.array(["a", "b", "c"])})
    assert tuple(columns) == COLUMNS and columns["image"] == ["a", "b", "b", "c"]
    row = 0
    for image, several in zip(images, texts, strict=True):
        for text in [several] if isinstance(several, str) else several:
            inputs = processor(image, text)
            output = model.segment(**inputs, max_new_tokens=8)
            assert columns["text"][row] == text
            assert columns["answer"][row] == processor.decode_answers(output, inputs)[0]
            assert columns["num_retained_tokens"][row] == output.retained_indices.shape[1]
            found = processor.post_process_instance_segmentation(output, inputs)[0]
            runs = columns["segmentation"][row]
            assert (runs is None) == (not found)
            assert columns["reason"][row] == processor.explain_no_masks(output, inputs)[0]
            if found:
                mask = decode_segmentation(runs, *image.size[::-1])
                assert (mask != found[0]["mask"].numpy()).mean() < 1e-3  # padding moves the last digits
                assert columns["area"][row] == mask.sum() and columns["bbox"][row][2] > 0
            row += 1


@pytest.mark.parametrize(("counts", "rows"), [((2, 2), 2), ((3,), 1), ((1, 2), 3), ((1, 1), 2)])
def test_unpruned_texts_about_an_image_share_its_tokens_where_each_image_has_as_many(counts, rows):
    model, processor = litelvlm.load_tiny()
    example, texts = Image.open(EXAMPLE_IMAGE), ["the red circle", "the large blue square", "the star"]
    images = [example, example.resize((200, 90))]
    batch = {"image": images[: len(counts)], "text": [texts[:count] for count in counts]}
    annotator = Annotator(model, processor, answer="It is [SEG].", batch_size=4, pruning_method="none")
    calls = []
    hook = model.model.backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    columns = annotator(batch)
    hook.remove()
    assert calls == ([rows, sum(counts)] if rows < sum(counts) else [rows])
    for row, (image, text) in enumerate((i, text) for i, count in enumerate(counts) for text in texts[:count]):
        inputs = processor(images[image], text)
        output = model.segment(**inputs, answer="It is [SEG].", processor=processor, pruning_method="none")
        expected = processor.post_process_instance_segmentation(output, inputs)[0][0]["mask"].numpy()
        mask = decode_segmentation(columns["segmentation"][row], *images[image].size[::-1])
        assert (mask != expected).mean() < 1e-3


def test_image_is_encoded_once_for_its_texts_and_broken_ones_are_told(monkeypatch):
    model, processor = litelvlm.load_tiny()
    seen = []
    encode = type(model).encode_image

    def counted(self, pixel_values, *args, **kwargs):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(type(model), "encode_image", counted)
    annotator = Annotator(model, processor, answer="It is [SEG].", batch_size=2)
    path = str(EXAMPLE_IMAGE)
    batch = {"image": [path, path, path, "none.png"], "text": ["a", "b", "c", "d"]}
    with pytest.raises(ValueError, match=r"image none\.png, text 'd': There is no file"):
        annotator(batch)
    annotator.skip_broken = True
    assert annotator(batch)["text"] == ["a", "b", "c"] and seen == [1]
    with pytest.raises(ValueError, match="no column text; it has image"):
        annotator({"image": []})


def test_a_text_with_half_a_character_stops_no_other_about_its_image():
    annotator = Annotator(*litelvlm.load_tiny(), answer="It is [SEG].")
    prepared = annotator.prepare([Request(str(EXAMPLE_IMAGE), ["the red circle", "a \ud83d", " "], "a.png")])
    assert prepared.asked == [("a.png", "the red circle")]
    half, empty = (error["error"] for error in prepared.errors)
    assert "which is half of a character" in half and "not empty" in empty


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_a_file_name_that_is_no_utf8_is_an_error_of_its_own_and_stops_nothing(ending, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in (b"ok.png", b"caf\xe9.png"):
        shutil.copy(EXAMPLE_IMAGE, os.fsencode(tmp_path / "in") + b"/" + name)
    output = tmp_path / f"out.{ending}"
    texts = ["--text", "the red circle", "the red circle"]
    assert main(["annotate", str(tmp_path / "in"), str(output), *texts, *ANSWER]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["errors"]) == (1, 1)  # a text that is given twice is asked once
    (error,) = map(json.loads, (tmp_path / f"{output.name}.errors.jsonl").read_text().splitlines())
    assert error["image"] == "caf?.png" and "no UTF-8" in error["error"]


def test_an_output_is_refused_before_the_model_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr("litelvlm.commands.loading.load_model", lambda *_: pytest.fail("the model was loaded"))
    (folder / "out.parquet").touch()
    for output, message in {
        "out.parquet": "already; --force replaces it",
        "missing/out.json": "There is no folder",
        "out.csv": "ends in .parquet or .json",
    }.items():
        assert main(["annotate", str(folder / "images"), str(folder / output), "--text", "x", *ANSWER]) == 2
        assert message in capsys.readouterr().err


def test_table_becomes_parquet_and_coco_and_what_is_broken_a_line_of_its_own(folder, capsys):
    table = str(folder / "images" / "table.csv")
    assert main(["annotate", table, str(folder / "out.parquet"), *ANSWER]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["masks"], report["errors"]) == (5, 5, 3)
    rows = parquet.read_table(folder / "out.parquet").to_pylist()
    assert tuple(rows[0]) == COLUMNS and {row["answer"] for row in rows} == {"It is [SEG]."}
    assert [row["image"] for row in rows] == ["0.png", "2.png", "3.png", "3.png", "4.png"]
    for row in rows:
        width, height = SIZES[int(row["image"][0])]
        assert decode_segmentation(row["segmentation"], height, width).sum() == row["area"]
    errors = [json.loads(line) for line in (folder / "out.parquet.errors.jsonl").read_text().splitlines()]
    assert [error["image"] for error in errors] == ["1.png", "1.png", "4.png"]
    assert str(folder) not in (folder / "out.parquet.errors.jsonl").read_text()
    assert "cannot be read as an image" in errors[0]["error"] and "not empty" in errors[2]["error"]
    assert not (folder / "out.parquet.parts").exists()

    assert main(["annotate", table, str(folder / "images" / "out.json"), *ANSWER]) == 0
    data = json.loads((folder / "images" / "out.json").read_text())
    assert [a["segmentation"] for a in data["annotations"]] == [row["segmentation"] for row in rows]
    entries = load_tables(folder / "images" / "out.json", "out")  # it is a table to evaluate on, too
    assert [entry.load_image().size for entry in entries] == [SIZES[i] for i in (0, 2, 3, 4)]

    capsys.readouterr()
    assert main(["annotate", table, str(folder / "out.parquet"), *ANSWER]) == 2
    assert "--force replaces it" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from litelvlm.annotation import annotate, parts
from litelvlm.commands.main import main

annotate.REQUESTS_PER_PART = 1
write = parts._write

def killed(path, text):
    if path.name == "part-000003.jsonl":
        path.with_name(path.name + ".incomplete").write_text(text[:50])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, text)

parts._write = killed
main(sys.argv[1:])
"""


def test_killed_annotation_goes_on_without_a_row_twice_or_missing(folder, monkeypatch, capsys):
    command = ["annotate", str(folder / "images" / "table.csv"), str(folder / "out.parquet"), *ANSWER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    parts = folder / "out.parquet.parts"
    assert sorted(path.name for path in parts.glob("*.jsonl")) == [f"part-00000{i}.jsonl" for i in range(3)]

    monkeypatch.setattr("litelvlm.annotation.annotate.REQUESTS_PER_PART", 1)
    assert main([*command, "--num-retained-tokens", "9"]) == 2
    assert "begun with other settings (num_retained_tokens differ)" in capsys.readouterr().err
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2  # the other three are not asked again
    both = ["the red circle", "the blue square"]
    expected = [("0.png", both[0]), ("2.png", both[0]), ("3.png", both[0]), ("3.png", both[1]), ("4.png", both[0])]
    assert asked(folder / "out.parquet") == expected
    assert len((folder / "out.parquet.errors.jsonl").read_text().splitlines()) == 3 and not parts.exists()


def test_parts_of_other_images_are_refused(tmp_path):
    parts = Parts(tmp_path / "out.json", {"model": "a"})
    parts.open()
    parts.write(0, [Request("a.png", ["x"], "a.png")], [], [])
    assert parts.known(0, [Request("a.png", ["x"], "a.png")]) and not parts.known(1, [])
    with pytest.raises(ValueError, match="made of other images or texts"):
        parts.known(0, [Request("b.png", ["x"], "b.png")])


def png(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "in.png"}


def requests_of(*arguments):
    source = open_source(*arguments)
    requests = list(source.requests)
    assert sum(request.num_rows for request in requests) == source.num_rows
    return [(request.name, list(request.texts)) for request in requests]


def test_sources_of_every_kind_give_images_with_their_texts(folder):
    images = folder / "images"
    assert requests_of(str(images), ["x", "y"]) == [(f"{i}.png", ["x", "y"]) for i in range(5)]
    (folder / "list.txt").write_text("images/0.png\n\nhttps://host/a.png\n")
    assert requests_of(str(folder / "list.txt"), ["x"]) == [("images/0.png", ["x"]), ("https://host/a.png", ["x"])]
    (images / "a.jsonl").write_text('{"image": "0.png", "text": ["x", "y"]}\n{"image": "0.png", "text": null}\n')
    assert requests_of(str(images / "a.jsonl")) == [("0.png", ["x", "y", None])]
    both = ["the red circle", "the blue square"]
    assert requests_of(str(images / "table.csv"))[1:] == [
        ("1.png", both),
        ("2.png", both[:1]),
        ("3.png", both),
        ("4.png", [both[0], " "]),
    ]
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = [
        {"image": png((8, 9)), "text": "x"},
        {"image": png((8, 9)), "text": "y"},
        {"image": png((5, 5)), "text": "z"},
    ]
    (folder / "hub").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "hub" / "train.parquet")
    assert requests_of(str(folder / "hub" / "train.parquet")) == [("in.png", ["x", "y"]), ("in.png", ["z"])]
    # As one of the Hub, but here
    streamed = [(request.name, request.texts) for request in open_source(str(folder / "hub")).requests]
    assert streamed == [("in.png", ["x", "y"]), ("in.png", ["z"])]
    named = {"images": [{"id": 7, "file_name": "0.png"}, {"id": 8, "file_name": "2.png"}]}
    named["annotations"] = [{"image_id": 7, "category_id": 1}] * 2 + [{"image_id": 7, "text": "the cat"}]
    (images / "coco.json").write_text(json.dumps(named | {"categories": [{"id": 1, "name": "dog"}]}))
    assert requests_of(str(images / "coco.json")) == [("0.png", ["dog", "the cat"])]
    scenes = RefShapes("val", 1, 32)
    write_refcoco(folder / "refer_seg", {"val": scenes})
    texts = [expression.text for expression in scenes[0].expressions]
    assert requests_of("refcoco", None, folder / "refer_seg", ["val"]) == [("val/1", texts)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "says nothing to ask; give the texts by --text"),
        ("none.csv", "There is no file"),
        ("none.txt", "There is no file"),
        ("no/such/folder", "There is no folder, list, table or data set"),
        ("bad.jsonl", "line 2 cannot be read"),
        ("other.csv", "has no column image"),
        ("coco.json", "is not in COCO's format"),
        ("twice.json", r"twice\.json': several images have the id 7"),
        ("latin.jsonl", r"latin\.jsonl' cannot be read: 'utf-8' codec"),
        ("latin.csv", r"latin\.csv' cannot be read: 'utf-8' codec"),
        ("deep.jsonl", r"deep\.jsonl': line 1 cannot be read"),
    ],
)
def test_sources_that_cannot_be_read_are_told_by_name(name, message, folder):
    (folder / "bad.jsonl").write_text('{"image": "a", "text": "b"}\n{"image"\n')
    (folder / "other.csv").write_text("picture,text\na.png,b\n")
    (folder / "coco.json").write_text('{"images": [{}], "annotations": []}')
    twice = [{"id": i, "file_name": f"{i}.png"} for i in (7, 8, "7")]
    (folder / "twice.json").write_text(json.dumps({"images": twice, "annotations": []}))
    (folder / "latin.csv").write_bytes(b"image,text\na.png,caf\xe9\n")
    (folder / "latin.jsonl").write_bytes(b'{"image": "a.png", "text": "caf\xe9"}\n')
    (folder / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=message):
        list(open_source(str(folder / name)).requests)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_tables_may_begin_with_the_mark_that_windows_writes(tmp_path, ending):
    lines = {"csv": "image,text\na.png,it\n", "jsonl": '{"image": "a.png", "text": "it"}\n'}
    (tmp_path / f"list.{ending}").write_text(lines[ending], encoding="utf-8-sig")
    assert requests_of(str(tmp_path / f"list.{ending}")) == [("a.png", ["it"])]


def test_rows_say_how_many_tokens_an_adaptive_method_kept_for_each_image():
    model, processor = load_tiny()
    choice = {"pruning_method": "prumerge-adaptive", "num_retained_tokens": 200}
    annotator = Annotator(model, processor, answer="It is [SEG].", **choice)
    images = [Image.open(EXAMPLE_IMAGE), Image.new("RGB", (64, 64), "gray")]
    rows = annotator({"image": images, "text": ["the red circle"] * 2})
    for image, number in zip(images, rows["num_retained_tokens"], strict=True):
        output = model.segment(
            **processor(image, "the red circle"), **choice, answer="It is [SEG].", processor=processor
        )
        assert number == int(output.num_retained_tokens[0]) < 200
