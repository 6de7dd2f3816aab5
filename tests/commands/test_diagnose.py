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
"""`litelvlm diagnose`: what it prints and writes, and one clear line for what is wrong."""

import json

from litelvlm.commands.main import main


def test_command_prints_a_verdict_and_writes_figures_and_maps(tmp_path, capsys):
    options = ["--images", "2", "--split", "testA", "--device", "cpu", "--output", str(tmp_path)]
    assert main(["diagnose", *options, "--num-retained-tokens", "85"]) == 0
    report = json.loads((tmp_path / "diagnosis.json").read_text())
    assert capsys.readouterr().out.startswith(report["verdict"])
    assert main(["diagnose", *options, "--num-retained-tokens", "85", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: printed[name] for name in report} == report
    assert report["expressions"] > 0 and len(report["figures"]["auroc"]) == 3
    assert (tmp_path / "heatmaps.png").read_bytes().startswith(b"\x89PNG")


def test_model_that_is_no_clip_is_one_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert main(["diagnose", "--model", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "it is a 'bert' model; allowed are 'litelvlm', 'clip' and 'siglip'" in error
