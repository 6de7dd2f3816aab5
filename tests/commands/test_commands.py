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
"""The command line: help is given without Transformers, and one thing has one flag in all commands."""

import argparse
import subprocess
import sys

import pytest

from litelvlm.commands.main import COMMANDS, build_parser, main

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]
LIGHT = """
import sys
sys.argv = ["litelvlm", *sys.argv[1:]]
from litelvlm.commands.main import main
try:
    main()
except SystemExit as end:
    heavy = sorted({"torch", "transformers", "numpy", "PIL", "accelerate"} & set(sys.modules))
    print("loaded:", heavy, "exit:", end.code)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in NAMES)], ids=" ".join)
def test_help_is_given_without_torch_and_transformers(arguments):
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True)
    assert done.stdout.endswith("loaded: [] exit: 0\n"), done.stdout + done.stderr


def test_the_module_runs_like_the_script():
    done = subprocess.run([sys.executable, "-m", "litelvlm", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("litelvlm ")


def flags():
    """The flags of every command."""
    actions = build_parser()._subparsers._group_actions
    (commands,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return {name: {f for a in parser._actions for f in a.option_strings} for name, parser in commands.choices.items()}


def test_one_thing_has_one_flag_in_all_commands():
    known = flags()
    assert set(known) == set(NAMES)
    for name, own in known.items():
        assert {"--json", "--debug"} <= own, name
    for name in ("segment", "evaluate", "diagnose", "benchmark"):
        assert {"--model", "--device", "--num-retained-tokens", "--output"} <= known[name], name
        assert "--dtype" in known[name]
    assert "--dtype" in known["convert"]
    assert {"--device-map"} <= known["segment"] & known["evaluate"]
    assert "--method" in known["segment"] and all(
        "--methods" in known[n] for n in ("evaluate", "diagnose", "benchmark")
    )


def test_debug_shows_the_traceback(capsys):
    wrong = ["segment", "none.png", "a"]
    assert main(wrong) == 2 and "There is no file 'none.png'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="There is no file"):
        main([*wrong, "--debug"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["segment", "example", "a", "--dtype", "float23"],
            "bfloat16, float16. Did you mean 'float32'?",
        ),
        (["segment", "example", "a", "--method", "trimm"], "`pruning_method` is 'trimm'; allowed are"),
        (["segment", "example", "a", "--method", "trimm"], "Did you mean 'trim'?"),
        (["evaluate", "--protocol", "generate", "--output", "x"], "conversation. Did you mean 'generation'?"),
        (["diagnose", "--dtype", "double", "--output", "x"], "--dtype is 'double'; allowed are auto, float32"),
        (["benchmark", "--preset", "lisa7b"], "Did you mean 'lisa-7b'?"),
        (["convert", "source", "dest", "--dtype", "double"], "`dtype` is 'double'; allowed are auto, float32"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
