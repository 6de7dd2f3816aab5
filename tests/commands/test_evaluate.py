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
"""`litelvlm evaluate`: what it prints, and one clear line for what is wrong."""

import json

import pytest
from transformers import AutoConfig

from litelvlm import TINY_MODEL
from litelvlm.commands.main import main
from litelvlm.commands.planning import plan
from litelvlm.data.registry import NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "refcoco"], "There is no file"),
        (["--data", "coco"], "There is no dataset 'coco'; allowed are refshapes,"),
        (["--split", "test"], "RefShapes has no split 'test'"),
        (["--methods", "best"], "`pruning_method` is 'best'; allowed are"),
        (["--methods", "litelvlm:token_order=spiral"], "`token_order` is 'spiral'; allowed are"),
        (["--methods", "litelvlm:speed=1"], "'speed=1' in 'litelvlm:speed=1' is no FIELD=VALUE"),
        (["--methods", "litelvlm:num_context_tokens=60", "--num-retained-tokens", "28"], "integers from 0 to 28"),
        (["--num-retained-tokens", "some"], "--num-retained-tokens holds 'some'"),
        (["--num-retained-tokens", "257"], "`num_retained_tokens` is 257; allowed are integers from 1 to 256"),
        (["--images", "0"], "--images is 0"),
        (["--model", "none/at all"], "The model 'none/at all' cannot be loaded"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments, "--device", "cpu", "--output", "run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
    assert not list(tmp_path.iterdir())


def test_results_are_one_json_object(capsys, tmp_path):
    options = ["--images", "1", "--split", "val", "--num-retained-tokens", "85", "--device", "cpu"]
    assert main(["evaluate", *options, "--output", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["results"] == json.loads((tmp_path / "results.json").read_text())["results"]
    assert str(tmp_path / "table.md") in report["files"]


def test_none_among_the_methods_is_measured_once_whatever_the_budgets():
    config = AutoConfig.from_pretrained(TINY_MODEL)
    runs = plan(["generation"], ["litelvlm", "none"], ["85", "28"], config)
    assert [run.name for run in runs] == ["generation/litelvlm/85", "generation/none/256", "generation/litelvlm/28"]
    assert [run.name for run in plan(["generation"], ["none"], ["85"], config)] == ["generation/none/256"]


def test_help_names_every_dataset(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    printed = capsys.readouterr().out.replace("\n", " ")
    assert [name for name in NAMES if f"{name}," not in printed] == []
