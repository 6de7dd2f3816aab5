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
"""The command line never asks: a repository with code of its own is refused in one line."""

import builtins
import json
import shutil

import pytest

from litelvlm import TINY_MODEL
from litelvlm.commands.main import main


@pytest.mark.parametrize(
    ("name", "changes", "arguments"),
    [
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", "own.T"]}, ["segment", "example", "a", "--json"]),
        ("guide_tokenizer/tokenizer_config.json", {"AutoTokenizer": ["own.T", "own.T"]}, ["segment", "example", "a"]),
        ("config.json", {"AutoConfig": "own.Config"}, ["diagnose"]),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", "own.T"]}, ["evaluate", "--images", "1"]),
    ],
)
def test_custom_code_is_neither_run_nor_asked_about(tmp_path, monkeypatch, capsys, name, changes, arguments):
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *prompt: asked.append(prompt) or "n")
    folder = shutil.copytree(TINY_MODEL, tmp_path / "model")
    config = json.loads((folder / name).read_text())
    config |= {"auto_map": changes, "tokenizer_class": "Own", "model_type": "own"}
    (folder / name).write_text(json.dumps(config))
    (folder / name).with_name("own.py").write_text("raise SystemExit('it ran')")
    output = [] if arguments[0] == "segment" else ["--output", str(tmp_path / "out")]
    assert main([*arguments, "--model", str(folder), *output]) == 2
    captured = capsys.readouterr()
    assert asked == [] and captured.out == "" and captured.err.count("\n") == 1
    assert "custom code" in captured.err
