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
"""`litelvlm segment`: right masks on shapes, and one clear line for what is wrong."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from litelvlm import EXAMPLE_IMAGE
from litelvlm.commands.main import main
from litelvlm.data.masks import decode_segmentation, draw_labelme_shape
from litelvlm.visualization import CONTEXT_COLOUR, SIMILARITY_COLOUR


@pytest.fixture
def drawing(tmp_path):
    """A red circle and a blue square on grey, and their masks."""
    masks = {}
    image = Image.new("RGB", (320, 240), (128, 128, 128))
    for name, draw_it in {
        "the red circle": lambda d, colour: d.ellipse((40, 70, 130, 160), fill=colour),
        "the blue square": lambda d, colour: d.rectangle((190, 80, 270, 160), fill=colour),
    }.items():
        mask = Image.new("L", image.size, 0)
        draw_it(ImageDraw.Draw(mask), 255)
        draw_it(ImageDraw.Draw(image), (220, 40, 40) if "red" in name else (40, 80, 220))
        masks[name] = np.asarray(mask) > 0
    image.save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png", masks


def iou(one, two):
    return (one & two).sum() / (one | two).sum()


def test_plain_drawing_is_segmented(drawing, tmp_path, capsys):
    path, masks = drawing
    for text, expected in masks.items():
        output, mask = tmp_path / "overlay.png", tmp_path / "mask.png"
        assert main(["segment", str(path), text, "--output", str(output), "--mask", str(mask), "--show-tokens"]) == 0
        assert iou(np.asarray(Image.open(mask)) == 255, expected) > 0.7, text
        assert Image.open(output).size == (2 * 320 + 8, 240)
        printed = capsys.readouterr().out
        assert "[SEG]" in printed and "of 256 visual tokens kept" in printed and "encode image" in printed


def test_example_is_segmented_and_described_in_json(capsys):
    assert main(["segment", "example", "the red circle", "--json", "--num-retained-tokens", "64"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_retained_tokens"] == 64 and "[SEG]" in report["answer"]
    (mask,) = report["masks"]
    assert mask["area"] > 0 and set(report["milliseconds"]) >= {"encode image", "answer and masks"}


def test_tokens_that_are_masked_are_not_counted_as_kept(capsys):
    arguments = ["--method", "prumerge-adaptive", "--num-retained-tokens", "256", "--answer", "It is [SEG]."]
    assert main(["segment", "example", "the red circle", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["num_retained_tokens"] < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png", "a"], "There is no file 'none.png'"),
        (["example", " "], "TEXT is empty"),
        (["example", "a", "--model", "none/at all"], "The model 'none/at all' cannot be loaded"),
        (["example", "a", "--method", "best"], "`pruning_method` is 'best'; allowed are"),
        (["example", "a", "--num-retained-tokens", "0"], "`num_retained_tokens` is 0; allowed are"),
        (["example", "a", "--output", "nowhere/overlay.png"], "There is no folder 'nowhere'"),
        (["example", "a", "--show-tokens"], "--output"),
        (["example", "a", "--output", "overlay.xyz"], "--output is 'overlay.xyz'; allowed are names that end in .png"),
        (["example", "a", "--mask", "mask.jpg"], "--mask is 'mask.jpg'; allowed are names that end in .png"),
        (["example", "a \udc80"], "which is half of a character"),
        (["example", "a", "--answer", "\udc80 [SEG]"], "which is half of a character"),
        (["example", "a", "--device", "abacus"], "--device is 'abacus'; allowed here: cpu"),
        (["example", "a", "--device", "meta"], "--device is 'meta'; allowed here: cpu"),
        (["example", "a", "--device", ""], "--device is ''; allowed here: cpu"),
        (["example", "a", "--device", "cpu:7"], "--device is 'cpu:7'; allowed here: cpu"),
        (["example", "a", "--device", "cuda:99"], "--device is 'cuda:99'; allowed here: cpu"),
        (["example", "a", "--device-map", "abacus"], "cannot be loaded: When passing device_map"),
        (["example", "a", "--device-map", ""], "cannot be loaded: When passing device_map"),
        (["example", "a", "--dtype", "float"], "--dtype is 'float'; allowed are 'auto', 'float32'"),
        (["example", "a", "--selection-rule", "mine"], "`selection_rule` is 'mine'; allowed are 'paper'"),
        (["example", "a", "--selection-rule", "paper", "--method", "trim"], "the method is 'trim'"),
        (["example", "a", "--answer", "No."], "`answer` holds no [SEG]"),
        (["example", "a", "--format", "coco"], "--mask, which is not given"),
        (["example", "a", "--format", "yaml", "--mask", "a.txt"], "--format is 'yaml'; allowed are 'png', 'coco'"),
        (["example", "a", "b", "--output", "a.png", "--show-tokens"], "for one text, but there are 2"),
        (["example", "a", " "], "TEXT is empty"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["segment", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_unreadable_image_is_one_line(tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    assert main(["segment", str(tmp_path / "text.png"), "a"]) == 2
    assert "cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 5000), (3000, 2)])
def test_an_image_that_is_a_line_is_refused_by_its_sizes(size, tmp_path, capsys):
    Image.new("RGB", size).save(tmp_path / "line.png")
    assert main(["segment", str(tmp_path / "line.png"), "a"]) == 2
    assert f"{size[0]} pixels wide and {size[1]} high; allowed are images" in capsys.readouterr().err


def test_tokens_are_shown_on_an_image_with_fewer_pixels_than_patches(tmp_path):
    Image.new("RGB", (10, 9)).save(tmp_path / "small.png")
    options = ["--output", str(tmp_path / "overlay.png"), "--show-tokens"]
    assert main(["segment", str(tmp_path / "small.png"), "the red circle", *options]) == 0
    assert Image.open(tmp_path / "overlay.png").height == 9


# Each with something that the small model finds in what the method leaves of the example
@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("fastv", "the red circle"),
        ("sparsevlm", "the red circle"),
        ("visionzip", "the red circle"),
        ("prumerge-adaptive", "the blue square"),
    ],
)
def test_images_are_segmented_by_other_methods(method, text, tmp_path, capsys):
    path = tmp_path / "overlay.png"
    command = ["segment", "example", text, "--method", method, "--num-retained-tokens", "128"]
    command += ["--answer", "It is [SEG]."]  # a method may cost this small model its answer
    assert main([*command, "--json", "--output", str(path), "--show-tokens"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] and path.is_file()


def test_an_answer_is_taken_as_given_and_masks_have_scores(capsys):
    assert main(["segment", "example", "the red circle", "--answer", "It is [SEG]."]) == 0
    printed = capsys.readouterr().out
    assert "answer: It is [SEG].\n" in printed and "score 0.9" in printed and "predicted IoU" in printed


@pytest.mark.parametrize(
    ("rule", "shown"), [("paper", (SIMILARITY_COLOUR, CONTEXT_COLOUR)), ("released", (SIMILARITY_COLOUR,))]
)
def test_kinds_of_tokens_that_a_rule_keeps_for_one_text_are_shown(rule, shown, tmp_path):
    path = tmp_path / "overlay.png"
    options = ["--output", str(path), "--show-tokens", "--selection-rule", rule]
    assert main(["segment", "example", "the red circle", *options]) == 0
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for colour in (SIMILARITY_COLOUR, CONTEXT_COLOUR):
        # Outlines are nearly opaque, so they come close to the colour itself; few other pixels do
        close = (abs(image - colour).max(axis=-1) < 40).sum()
        assert close > 500 if colour in shown else close < 50, (colour, close)


def test_model_is_spread_by_a_device_map(capsys):
    assert main(["segment", "example", "the red circle", "--device-map", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cpu", "--device-map", "auto"], "--device-map: not allowed with argument --device"),
        (["--answer", "[SEG].", "--max-new-tokens", "8"], "--max-new-tokens: not allowed with argument --answer"),
        (["--num-retained-tokens", "all"], "'all' is no whole number; all are kept by --method none"),
        (["--num-retained-tokens", "0.5"], "'0.5' is no whole number"),
    ],
)
def test_flags_of_another_form_or_that_exclude_each_other_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(["segment", "example", "a", *flags])
    assert message in capsys.readouterr().err


def test_several_texts_are_asked_of_one_image_and_written_in_every_format(drawing, tmp_path, capsys):
    path, masks = drawing
    texts, found = list(masks), {}
    for name, file in {"png": "m.png", "coco": "m.json", "yolo": "m.txt", "labelme": "labelme.json"}.items():
        assert main(["segment", str(path), *texts, "--json", "--mask", str(tmp_path / file), "--format", name]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["text"] == texts and len(report["answer"]) == 2
        assert [mask["text"] for mask in report["masks"]] == texts
    coco = json.loads((tmp_path / "m.json").read_text())
    found["coco"] = [decode_segmentation(a["segmentation"], 240, 320) > 0 for a in coco["annotations"]]
    assert [a["text"] for a in coco["annotations"]] == texts and coco["images"][0]["file_name"] == path.name
    shapes = json.loads((tmp_path / "labelme.json").read_text())["shapes"]
    found["labelme"] = [
        np.any([draw_labelme_shape(s, 240, 320) for s in shapes if s["label"] == text], axis=0) for text in texts
    ]
    lines = [line.split() for line in (tmp_path / "m.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["0", "1"]
    points = [(np.array(line[1:], float).reshape(-1, 2) * (320, 240)).flatten().tolist() for line in lines]
    found["yolo"] = [decode_segmentation([p], 240, 320) > 0 for p in points]
    for name, them in found.items():
        assert [iou(a, b) for a, b in zip(them, found["coco"], strict=True)] == [1, 1], name
        assert all(iou(a, b) > 0.7 for a, b in zip(them, masks.values(), strict=True)), name
    assert np.array_equal(np.asarray(Image.open(tmp_path / "m.png")) > 0, np.any(found["coco"], axis=0))


def test_texts_without_json_are_printed_with_their_masks(capsys):
    assert main(["segment", "example", "the red circle", "the blue square", "--answer", "It is [SEG]."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == ["text", "answer", "mask"] * 2


def test_image_is_read_from_standard_input(monkeypatch, capsys):
    for data, code in ((EXAMPLE_IMAGE.read_bytes(), 0), (b"no image", 2), (b"", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(["segment", "-", "the red circle"]) == code
    assert "Standard input (0 bytes) cannot be read as an image" in capsys.readouterr().err


def test_a_coco_file_names_the_image_without_its_folders(drawing, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    written = []
    for kind in ("coco", "labelme"):
        mask = tmp_path / "masks" / f"{kind}.json"
        asked = ["segment", str(drawing[0]), "a", "--answer", "It is [SEG]."]
        assert main([*asked, "--mask", str(mask), "--format", kind]) == 0
        written.append(json.loads(mask.read_text()))
    assert written[0]["images"][0]["file_name"] == drawing[0].name
    # LabelMe opens the image from there
    assert (tmp_path / "masks" / written[1]["imagePath"]).samefile(drawing[0])
