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
"""Evaluation: going on after a crash, several processes, broken data, and what is written."""

import importlib
import json
import os
import subprocess
import sys
from copy import copy, deepcopy
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from PIL import Image

import litelvlm
from litelvlm.commands.main import main
from litelvlm.data.refcoco import write_refcoco
from litelvlm.data.refshapes import RefShapes
from litelvlm.data.registry import load_split
from litelvlm.data.samples import BrokenAnnotation, Referring, ReferringImage, broken
from litelvlm.evaluation.evaluate import evaluate
from litelvlm.evaluation.fingerprints import fingerprint_of_model, fingerprint_of_processor
from litelvlm.evaluation.runs import Run

RUNS = [Run("generation", "none", 256), Run("generation", "litelvlm", 85), Run("conversation", "litelvlm", 85)]
SEED = 1234


@pytest.fixture(scope="module")
def finished(embedded, val, tmp_path_factory):
    """A folder of an evaluation that was not stopped, and its results."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, evaluate(*embedded, {("refshapes", "val"): val}, RUNS, folder, seed=SEED)


def record_measured(monkeypatch):
    """Ids of the images that are measured from here on."""
    module, ids = importlib.import_module("litelvlm.evaluation.evaluate"), []
    measure = module.measure

    def recorded(model, processor, entry, *rest):
        ids.append(entry.id)
        return measure(model, processor, entry, *rest)

    monkeypatch.setattr(module, "measure", recorded)
    return ids


def test_refcocos_layout_gives_the_same_figures_as_refshapes_itself(embedded, val, finished, tmp_path):
    write_refcoco(tmp_path, {"val": RefShapes("val", 3, 256, SEED)})
    read = load_split("refcoco", "val", tmp_path)
    report = evaluate(*embedded, {("refcoco", "val"): read}, RUNS, tmp_path / "run", seed=SEED)
    for direct, other in zip(finished[1]["results"], report["results"], strict=True):
        # Images have other ids, so the bootstrap may draw others; the figures themselves are the same
        assert {k: v for k, v in direct.items() if not k.endswith(("_low", "_high", "data"))} == {
            k: v for k, v in other.items() if not k.endswith(("_low", "_high", "data"))
        }


@pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.7, 0.99])
def test_evaluation_goes_on_wherever_it_was_killed(embedded, val, finished, tmp_path, share, monkeypatch):
    folder, report = finished
    written = (folder / "samples-0.jsonl").read_bytes()
    # As a kill leaves it, of a start with more processes: cut anywhere, and an image that both have
    (tmp_path / "samples-0.jsonl").write_bytes(written[: int(share * len(written))])
    lines = written.splitlines(keepends=True)
    (tmp_path / "samples-7.jsonl").write_bytes(lines[0] + lines[1] + lines[2][:30])
    measured = record_measured(monkeypatch)
    again = evaluate(*embedded, {("refshapes", "val"): val}, RUNS, tmp_path, seed=SEED)
    assert again == report and (tmp_path / "results.json").read_bytes() == (folder / "results.json").read_bytes()
    assert val[0].id not in measured and len(measured) == len(set(measured))
    assert len(measured) == (1 if share == 0.99 else 2) or share == 0.7


def test_folder_of_another_evaluation_is_refused(embedded, val, finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"samples-0\.jsonl' is of another evaluation \(runs, seed differ\)"):
        evaluate(*embedded, {("refshapes", "val"): val}, RUNS[:1], folder, seed=1)
    with pytest.raises(ValueError, match=r"\(data differ\)"):
        evaluate(*embedded, {("refshapes", "val"): val[:2]}, RUNS, folder, seed=SEED)


@pytest.fixture
def short(make_text_model, processor, tmp_path, monkeypatch):
    """An evaluation of two images by a tiny random model, and a function that goes on with it: ids and report."""
    model, runs = make_text_model(), [Run("generation", "litelvlm", 6)]
    side = np.eye(8, dtype=np.uint8)
    entries = [
        ReferringImage(name, lambda name=name: Image.new("RGB", (8, 8), name), (Referring(name, "it", lambda: side),))
        for name in ("red", "blue")
    ]
    measured = record_measured(monkeypatch)

    def go_on(model=model, processor=processor, entries=entries, **options):
        measured.clear()
        report = evaluate(model, processor, {("mine", "val"): entries}, runs, tmp_path, **options)
        return list(measured), report

    assert go_on()[0] == ["red", "blue"] and go_on()[0] == []
    return go_on, model, processor, entries


@pytest.mark.parametrize("part", ["model.guide", "sam.mask_decoder", "lm_head"])
def test_a_single_other_weight_is_another_evaluation(short, part):
    go_on, model, *_ = short
    other = deepcopy(model)
    assert go_on(model=other)[0] == []
    with torch.no_grad():
        list(other.get_submodule(part).parameters())[-1].view(-1)[-1].add_(1e-3)
    with pytest.raises(ValueError, match=r"\(model differ\)"):
        go_on(model=other)


def test_another_precision_is_named_and_stands_in_the_report(short):
    go_on, model, *_ = short
    assert go_on()[1]["settings"]["dtype"] == "float32"
    with pytest.raises(ValueError, match=r"\(model, dtype differ\)"):
        go_on(model=deepcopy(model).to(torch.bfloat16))


def test_weights_that_accelerate_has_offloaded_are_hashed_too(short):
    model = short[1]
    before = fingerprint_of_model(model)
    assert fingerprint_of_model(accelerate.cpu_offload(deepcopy(model), torch.device("cpu"))) == before


def test_another_processor_is_another_evaluation_and_another_folder_of_the_same_is_none(short, tmp_path):
    go_on, _, processor, _ = short
    prints = []
    for name in ("here", "elsewhere"):
        processor.save_pretrained(tmp_path / name)
        prints.append(fingerprint_of_processor(type(processor).from_pretrained(tmp_path / name)))
    assert prints[0] == prints[1]
    templated, mean, words = copy(processor), deepcopy(processor), deepcopy(processor)
    templated.question_template = "{}?"
    mean.image_processor.image_mean = [0.5, 0.5, 0.5]
    words.guide_tokenizer.add_tokens(["circle"])
    for other in (templated, mean, words):
        with pytest.raises(ValueError, match=r"\(processor differ\)"):
            go_on(processor=other)


def test_an_image_or_a_mask_that_has_changed_is_measured_again(short):
    go_on, _, _, (red, blue) = short
    assert go_on(entries=[ReferringImage("red", blue.load_image, red.expressions), blue])[0] == ["red"]
    filled = (Referring("blue", "it", lambda: np.ones((8, 8), np.uint8)),)
    measured, report = go_on(entries=[red, ReferringImage("blue", blue.load_image, filled)])
    assert measured == ["blue"] and report["results"][0]["union"] >= 8 * 8
    assert go_on()[0] == []


def test_what_was_broken_is_tried_again_and_counts_once_it_is_mended(short):
    go_on, _, _, (red, blue) = short
    torn = ReferringImage("red", lambda: broken("image red: torn."), red.expressions)
    assert go_on(entries=[torn, blue], skip_broken=True)[0] == ["red"]
    measured, report = go_on(entries=[torn, blue], skip_broken=True)
    assert measured == [] and report["broken"] == ["image red: torn."]
    elsewhere = ReferringImage("red", lambda: broken("There is no file '/data/set/red.png'."), red.expressions)
    assert go_on(entries=[elsewhere, blue], skip_broken=True)[1]["broken"] == ["There is no file 'red.png'."]
    with pytest.raises(BrokenAnnotation, match="image red: torn"):
        go_on(entries=[torn, blue])
    assert go_on()[1]["broken"] == []


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, "[]"),
        (1, '{"settings": 3}'),
        (2, "nonsense"),
        (2, "{}"),
        (3, '{"key": "a", "content": "b", "counts": {"r": [[1]]}, "broken": []}'),
        (3, '{"key": "a", "content": "b", "counts": {"r": [["e", 1, 2, 1, 2]]}, "broken": []}'),
    ],
)
def test_damaged_line_is_named_with_its_file_and_what_to_do(short, tmp_path, number, line):
    path = tmp_path / "samples-0.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]) + "\n")
    with pytest.raises(ValueError, match=rf"samples-0\.jsonl', line {number} is damaged; delete the (line|file)"):
        short[0]()
    if number > 1:  # what the message says
        path.write_text("\n".join([*lines[: number - 1], *lines[number:]]) + "\n")
        assert len(short[0]()[0]) == 1


def test_two_processes_give_what_one_gives(tmp_path):
    options = [
        "evaluate",
        "--images",
        "3",
        "--split",
        "val",
        "--num-retained-tokens",
        "all",
        "85",
        "--device",
        "cpu",
        "--output",
    ]
    assert main([*options, str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(litelvlm.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", "litelvlm", *options, str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    parts = [path.read_text().count("\n") - 1 for path in sorted((tmp_path / "two").glob("samples-*.jsonl"))]
    assert parts == [2, 1]
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one == two


def test_broken_annotations_are_named_or_skipped_and_counted(embedded, val, tmp_path):
    first, second, _ = val
    torn = Referring("torn", "the torn one", lambda: broken("'somewhere.json': annotation 5: torn."))
    small = Referring("small", "the small one", lambda: np.zeros((3, 3), np.uint8))
    bad = [
        ReferringImage("a", first.load_image, (*first.expressions, torn, small, Referring("e", " ", lambda: None))),
        ReferringImage("b", lambda: broken("image b: There is no file 'b.jpg'."), second.expressions),
    ]
    data = {("mine", "val"): bad}
    with pytest.raises(BrokenAnnotation, match=r"somewhere\.json': annotation 5"):
        evaluate(*embedded, data, RUNS[:1], tmp_path)
    report = evaluate(*embedded, data, RUNS[:1], tmp_path, skip_broken=True)
    assert len(report["broken"]) == 3 + len(second.expressions)
    assert "mask of shape (3, 3), but the image is 256 high and 256 wide" in report["broken"][1]
    assert report["results"][0]["expressions"] == len(first.expressions) and report["results"][0]["images"] == 1
