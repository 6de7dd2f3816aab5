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
"""The embedded model and the command line: right masks on shapes, and one clear line for what is wrong."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

import litelvlm
from litelvlm.commands.main import main
from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU


@pytest.fixture(scope="module")
def embedded():
    return litelvlm.load_tiny()


@pytest.fixture
def drawing(tmp_path):
    """A red circle and a blue square on grey, and their masks."""
    masks = {}
    picture = Image.new("RGB", (320, 240), (128, 128, 128))
    for name, draw_it in {
        "the red circle": lambda d, colour: d.ellipse((40, 70, 130, 160), fill=colour),
        "the blue square": lambda d, colour: d.rectangle((190, 80, 270, 160), fill=colour),
    }.items():
        mask = Image.new("L", picture.size, 0)
        draw_it(ImageDraw.Draw(mask), 255)
        draw_it(ImageDraw.Draw(picture), (220, 40, 40) if "red" in name else (40, 80, 220))
        masks[name] = np.asarray(mask) > 0
    picture.save(tmp_path / "drawing.png")
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


def test_unpruned_quality_holds_on_scenes_never_seen(embedded):
    """A guard below the value measured on these scenes, 0.86: it catches broken weights, not small changes."""
    model, processor = embedded
    scenes, metric = RefShapes("val", 24, size=256, seed=4321), CumulativeIoU()
    for sample in (scenes[i] for i in range(24)):
        inputs = processor(sample.image, sample.expressions[0].text)
        output = model.segment(**inputs, pruning_method="none", max_new_tokens=16)
        sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
        (masks,) = processor.post_process_masks(output.pred_masks, *sizes)
        metric.update(masks.numpy(), sample.masks[:1])
    assert metric.ciou > 0.78


def test_batch_of_four_gives_the_masks_of_four_single_calls(embedded):
    """Logits agree to 1e-3 (padding changes the order of sums), so masks agree but for pixels at the threshold."""
    model, processor = embedded
    samples = [RefShapes("val", 9, size=128 + 32 * i, seed=9)[i] for i in range(4)]
    texts = [sample.expressions[0].text for sample in samples]
    batch = processor([s.image for s in samples], texts)
    together = model.segment(**batch, max_new_tokens=16)
    for i, sample in enumerate(samples):
        inputs = processor(sample.image, texts[i])
        alone = model.segment(**inputs, max_new_tokens=16)
        answer = alone.sequences[0, inputs["input_ids"].shape[1] :]
        start = batch["input_ids"].shape[1]
        assert torch.equal(answer, together.sequences[i, start : start + len(answer)])
        assert torch.equal(alone.retained_indices[0], together.retained_indices[i])
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-3, rtol=1e-3)


def test_installed_package_serves_transformers_auto_classes_without_remote_code():
    folder = litelvlm.TINY_MODEL
    model = AutoModel.from_pretrained(folder)
    assert type(model) is litelvlm.LiteLVLMForSegmentation
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is type(model)
    assert type(AutoProcessor.from_pretrained(folder)) is litelvlm.LiteLVLMProcessor
    pipe = pipeline(model=str(folder), pipeline_class=litelvlm.ReferringSegmentationPipeline)
    assert pipe.task == "referring-segmentation"
    (entry,) = pipe(litelvlm.EXAMPLE_IMAGE, "the red circle")
    assert entry["mask"].size == Image.open(litelvlm.EXAMPLE_IMAGE).size and 0.5 < entry["score"] <= 1


def test_checkpoint_is_small_and_laid_out_like_any_other():
    files = {path.name: path for path in litelvlm.TINY_MODEL.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "chat_template.jinja"} <= files.keys()
    assert os.path.getsize(files["model.safetensors"]) < 20e6


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
        (["example", "a", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["segment", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_unreadable_picture_is_one_line(tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    assert main(["segment", str(tmp_path / "text.png"), "a"]) == 2
    assert "cannot be read as an image" in capsys.readouterr().err


def test_methods_are_listed_with_where_they_prune_and_their_source(capsys):
    assert main(["methods", "--json"]) == 0
    methods = {method["name"]: method for method in json.loads(capsys.readouterr().out)["methods"]}
    assert {"litelvlm", "fastv", "sparsevlm", "trim", "visionzip", "random"} <= methods.keys()
    assert methods["fastv"]["where"] == "inside the language model" and methods["fastv"]["reads_text"]
    assert methods["visionzip"]["where"] == "before the language model" and not methods["visionzip"]["reads_text"]
    assert "arXiv 2409.10994" in methods["trim"]["source"] and "lowest similarity" in methods["trim"]["summary"]
    assert main(["methods"]) == 0
    assert "litelvlm: before the language model, reads the text" in capsys.readouterr().out


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
def test_pictures_are_segmented_by_other_methods(method, text, tmp_path, capsys):
    path = tmp_path / "overlay.png"
    command = ["segment", "example", text, "--method", method, "--num-retained-tokens", "128"]
    assert main([*command, "--json", "--output", str(path), "--show-tokens"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] and path.is_file()
