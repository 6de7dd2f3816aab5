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

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import litelvlm
from litelvlm.commands.main import main
from litelvlm.data.refcoco import write_refcoco
from litelvlm.data.refshapes import RefShapes
from litelvlm.data.registry import load_split
from litelvlm.data.samples import BrokenAnnotation, Referring, ReferringImage, broken
from litelvlm.evaluation.evaluate import evaluate
from litelvlm.evaluation.runs import Run

RUNS = [Run("generation", "none", 256), Run("generation", "litelvlm", 85), Run("conversation", "litelvlm", 85)]
SEED = 1234


@pytest.fixture(scope="module")
def finished(embedded, val, tmp_path_factory):
    """A folder of an evaluation that was not stopped, and its results."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, evaluate(*embedded, {("refshapes", "val"): val}, RUNS, folder, seed=SEED)


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
def test_evaluation_goes_on_wherever_it_was_killed(embedded, val, finished, tmp_path, share):
    folder, report = finished
    written = (folder / "samples-0.jsonl").read_bytes()
    # As a kill leaves it, of a start with more processes: cut anywhere, and an image that both have
    (tmp_path / "samples-0.jsonl").write_bytes(written[: int(share * len(written))])
    lines = written.splitlines(keepends=True)
    (tmp_path / "samples-7.jsonl").write_bytes(lines[0] + lines[1] + lines[2][:30])
    measured = []
    counted = [
        ReferringImage(e.id, lambda e=e: (measured.append(e.id), e.load_image())[1], e.expressions) for e in val
    ]
    again = evaluate(*embedded, {("refshapes", "val"): counted}, RUNS, tmp_path, seed=SEED)
    assert again == report and (tmp_path / "results.json").read_bytes() == (folder / "results.json").read_bytes()
    assert val[0].id not in measured and len(measured) == len(set(measured))
    assert len(measured) == (1 if share == 0.99 else 2) or share == 0.7


def test_folder_of_another_evaluation_is_refused(embedded, val, finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"samples-0\.jsonl' is of another evaluation \(runs, seed differ\)"):
        evaluate(*embedded, {("refshapes", "val"): val}, RUNS[:1], folder, seed=1)
    with pytest.raises(ValueError, match=r"\(data differ\)"):
        evaluate(*embedded, {("refshapes", "val"): val[:2]}, RUNS, folder, seed=SEED)


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
