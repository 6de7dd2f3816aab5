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
"""The page's functions, without a browser: what is answered, drawn, kept and refused."""

import json
import shutil
from collections import OrderedDict

import gradio
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.commands.main import main
from litelvlm.hub_cards import app
from litelvlm.outputs import to_coco

EXAMPLE = str(EXAMPLE_IMAGE)


@pytest.fixture(scope="module")
def shown(embedded):
    return app.ask(*embedded, OrderedDict(), EXAMPLE, "the red circle", "litelvlm", 85)


@pytest.fixture(scope="module")
def page(embedded):
    return app.build(*embedded, [[EXAMPLE, "the red circle"]], to_coco)


def show(page, *inputs):
    (function,) = {block.fn for block in page.fns.values() if getattr(block.fn, "__name__", "") == "show"}
    return function(*inputs)


def test_answer_is_that_of_the_model_with_the_method_and_with_all_tokens(embedded, shown):
    model, processor = embedded
    inputs = processor(images=EXAMPLE_IMAGE, text="the red circle")
    for run, options in ((shown.run, {"num_retained_tokens": 85}), (shown.whole, {"pruning_method": "none"})):
        output = model.segment(**inputs, **options, max_new_tokens=64)
        ((expected,),) = processor.post_process_instance_segmentation(output, inputs)
        assert run.answer == processor.decode_answers(output, inputs)[0]
        assert torch.equal(run.found[0]["mask"], expected["mask"])
        assert run.num_new_tokens == output.sequences.shape[1] - inputs["input_ids"].shape[1]
        assert list(run.milliseconds) == ["Read the prompt", "Write the answer", "Decode the masks"]
        assert all(value > 0 for value in run.milliseconds.values())
    assert shown.num_retained_tokens == 85 and [int(kept.sum()) for kept in shown.patches] == [42, 43]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in (model.model, model.seg_head))


def test_image_is_encoded_once_for_all_questions_and_methods(embedded, monkeypatch, tmp_path):
    model, processor = embedded
    calls = []
    encode_image = model.encode_image
    monkeypatch.setattr(
        model, "encode_image", lambda **arguments: calls.append(arguments) or encode_image(**arguments)
    )
    states = OrderedDict()
    copy = str(shutil.copy(EXAMPLE, tmp_path / "copy.png"))
    # A layerwise method and all tokens look at none of the signals that others need
    for path, text, method in (
        (EXAMPLE, "the red circle", "fastv"),
        (EXAMPLE, "the green star", "none"),
        (copy, "the green star", "litelvlm"),
        (copy, "the yellow ring", "trim"),
    ):
        kept = app.ask(model, processor, states, path, text, method, 40).is_kept
        assert kept == (text != "the red circle")
    assert len(calls) == len(states) == 1
    # One that looks into the vision tower does
    assert not app.ask(model, processor, states, copy, "the yellow ring", "hiprune", 40).is_kept
    assert len(calls) == len(states) == 2


def test_session_keeps_the_images_that_were_asked_last(embedded, tmp_path):
    states, paths = OrderedDict(), []
    for number in range(app.MAX_STATES + 1):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (64, 64), (number, 0, 0)).save(paths[-1])
        app.ask(*embedded, states, paths[-1], "it", "litelvlm", 10)
        assert app.ask(*embedded, states, paths[0], "it", "litelvlm", 10).is_kept
    assert len(states) == app.MAX_STATES
    assert not app.ask(*embedded, states, paths[1], "it", "litelvlm", 10).is_kept


def test_every_method_of_the_menu_is_answered(embedded):
    methods = app.list_methods(embedded[0])
    assert {"litelvlm", "fastv", "visionzip", "none"} < set(methods)
    states = OrderedDict()
    for method in methods:
        shown = app.ask(*embedded, states, EXAMPLE, "the red circle", method, 28)
        assert shown.num_retained_tokens == 256 if method == "none" else shown.num_retained_tokens <= 28
        image, layers = app.draw_tokens(shown, cropped=False)
        assert image.size == Image.open(EXAMPLE).size and layers
        assert {kind for _, kind in layers} <= {
            "similarity-aware",
            "context-aware" if method == "litelvlm" else "kept",
        }


@pytest.mark.parametrize(
    ("size", "cropped", "box"),
    [
        ((64, 64), False, (16, 0, 32, 16)),
        ((128, 64), False, (32, 0, 64, 16)),
        ((128, 64), True, (48, 0, 64, 16)),
        ((64, 128), True, (16, 32, 32, 48)),
    ],
)
def test_patch_is_drawn_where_the_vision_tower_sees_it(size, cropped, box):
    kept = np.zeros((4, 4), dtype=bool)
    kept[0, 1] = True
    left, top, right, bottom = box
    expected = np.zeros(size[::-1], dtype=bool)
    expected[top:bottom, left:right] = True
    opacity = app.spread_patches(kept, size, cropped)
    assert np.array_equal(opacity > 0, expected)
    assert opacity[top, left] > opacity[top + 3, left + 3]


def test_mask_is_drawn_over_an_image_that_is_small_enough(embedded, tmp_path):
    path = str(tmp_path / "large.png")
    Image.open(EXAMPLE).resize((1600, 800)).save(path)
    shown = app.ask(*embedded, OrderedDict(), path, "the red circle", "litelvlm", 85)
    assert shown.image.size == (1600, 800)
    image, ((opacity, label),) = app.draw_masks(shown)
    assert image.size == (1024, 512) and opacity.shape == (512, 1024) and label in app.MASK_COLOURS
    mask = shown.run.found[0]["mask"].float()[None, None]
    small = torch.nn.functional.interpolate(mask, (512, 1024))[0, 0].numpy() > 0
    assert np.mean((opacity == 0.5) == small) > 0.99


def test_files_hold_the_mask(shown, tmp_path):
    png, coco = app.write_files(shown, "/elsewhere/photo.jpg", str(tmp_path), to_coco)
    expected = shown.run.found[0]["mask"].numpy()
    assert png.endswith("photo-mask.png") and np.array_equal(np.asarray(Image.open(png)), expected * np.uint8(255))
    with open(coco) as file:
        (annotation,) = (data := json.load(file))["annotations"]
    assert data["images"][0]["file_name"] == "photo.jpg" and annotation["text"] == "the red circle"
    assert np.array_equal(coco_mask.decode(annotation["segmentation"]), expected)
    assert app.write_files(shown, "photo.jpg", str(tmp_path), None)[1] is None


def test_model_without_masks_is_shown_too():
    model, processor = load_tiny(sam_config=None)
    processor.with_masks, processor.question_template = False, "{}"
    page = app.build(model, processor)
    values = show(page, EXAMPLE, "What is this?", "litelvlm", 85, OrderedDict())
    assert len(values[0][1]) == 2 and isinstance(values[2], str) and "answers in text only" in values[3]
    assert [len(line) for line in values[4].value["data"]] == [3] * 4


def image_file(tmp_path, kind):
    path = tmp_path / "image.png"
    if kind == "large":
        Image.new("1", (9600, 9600)).save(path)
    elif kind == "postscript":
        Image.new("RGB", (8, 8)).save(path, "EPS")
    elif kind == "heavy":
        path.write_bytes(EXAMPLE_IMAGE.read_bytes() + bytes(20 * 2**20))
    elif kind == "cut":
        path.write_bytes(EXAMPLE_IMAGE.read_bytes()[:9000])
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("large", "9600 x 9600 pixels are more than the limit"),
        ("postscript", "cannot be read as an image: cannot identify an image; allowed are BMP"),
        ("heavy", "more than 20 MiB"),
        ("cut", "cannot be read as an image: image file is truncated"),
        ("gone", "not kept any more; choose it again"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_beyond_the_limits_is_refused_in_one_line(page, tmp_path, kind, message):
    with pytest.raises(gradio.Error, match=message) as raised:
        show(page, image_file(tmp_path, kind), "the red circle", "litelvlm", 85, OrderedDict())
    assert "\n" not in raised.value.message and str(tmp_path) not in raised.value.message
    assert "object at 0x" not in raised.value.message


@pytest.mark.parametrize(
    ("path", "text", "method", "budget", "message"),
    [
        (None, "the red circle", "litelvlm", 85, "There is no image"),
        (EXAMPLE, " ", "litelvlm", 85, "texts that are not empty"),
        (EXAMPLE, "x" * 2001, "litelvlm", 85, "2001 characters; allowed are 2000"),
        (EXAMPLE, "the red circle", "litelvlm", 257, "`num_retained_tokens` is 257"),
        (EXAMPLE, "the red circle", "fastvv", 85, "Did you mean 'fastv'"),
    ],
)
def test_question_that_cannot_be_answered_is_refused_in_one_line(page, path, text, method, budget, message):
    with pytest.raises(gradio.Error, match=message):
        show(page, path, text, method, budget, OrderedDict())


def test_fault_of_the_server_tells_nothing_of_it(page, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("/home/someone/secret")

    monkeypatch.setattr(app, "ask", fail)
    with pytest.raises(gradio.Error) as raised:
        show(page, EXAMPLE, "the red circle", "litelvlm", 85, OrderedDict())
    assert raised.value.message == "The question could not be answered; the server's log says why."
    assert "/home/someone/secret" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port is 70000; allowed are 0 to 65535."),
        (["--host", "192.0.2.1", "--port", "0"], "192.0.2.1:0 cannot be listened on"),
    ],
)
def test_demo_that_cannot_be_served_ends_in_one_line(capsys, flags, message):
    assert main(["demo", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
