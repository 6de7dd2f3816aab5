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
import logging
import os
import subprocess
import sys
import warnings

import pytest
from PIL import Image

from litelvlm.commands import methods
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
            "'bfloat16', 'float16', 'auto-fast'. Did you mean 'float32'?",
        ),
        (["segment", "example", "a", "--method", "trimm"], "`pruning_method` is 'trimm'; allowed are"),
        (["segment", "example", "a", "--method", "trimm"], "Did you mean 'trim'?"),
        (["evaluate", "--protocol", "generate", "--output", "x"], "'conversation'. Did you mean 'generation'?"),
        (["diagnose", "--dtype", "double", "--output", "x"], "--dtype is 'double'; allowed are 'auto', 'float32'"),
        (["benchmark", "--preset", "lisa7b"], "Did you mean 'lisa-7b'?"),
        (["convert", "source", "dest", "--dtype", "double"], "`dtype` is 'double'; allowed are 'auto', 'float32'"),
        (["convert", "source", "dest", "--dtype", "auto-fast"], "'bfloat16', 'float16'."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "/9j4" * 9000, "a"],
        ["segment", "example", "a", "--output", f"{'b' * 300}.png"],
        ["segment", "example", "a", "--model", "m" * 300],
        ["convert", "c" * 300, "converted"],
        ["verify", "v" * 300],
        ["evaluate", "--data", "d" * 300, "--output", "out"],
    ],
)
def test_a_name_of_any_length_gives_a_short_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    # Its beginning says which one is meant
    assert error.count("\n") == 1 and len(error) < 500 and next(a for a in arguments if len(a) > 200)[:8] in error


def test_an_image_of_too_many_pixels_is_one_line_without_pillows_own_warning(tmp_path, capsys, monkeypatch):
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert main(["segment", str(tmp_path / "large.png"), "a"]) == 2
    assert "40 x 30 pixels are more than" in capsys.readouterr().err
    assert not [w for w in given if issubclass(w.category, Image.DecompressionBombWarning)]


def started(*arguments, **kwargs):
    command = [sys.executable, "-m", "litelvlm", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


def test_nothing_is_said_where_the_reader_of_a_pipe_has_gone():
    reading, writing = os.pipe()
    os.close(reading)
    process = started("methods", stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == "" and process.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        process = started("methods", "--json", stdout=full)
    assert process.communicate()[1] == "litelvlm: [Errno 28] No space left on device\n" and process.returncode == 2


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (KeyError("weights"), 2, "litelvlm: KeyError: 'weights' (`--debug` shows where)\n"),
        (MemoryError(), 2, "litelvlm: MemoryError: MemoryError (`--debug` shows where)\n"),
        (ValueError("one\ntwo"), 2, "litelvlm: one\n"),
    ],
)
def test_whatever_ends_a_command_is_no_traceback(raised, code, said, monkeypatch, capsys):
    def fail(options):
        raise raised

    monkeypatch.setattr(methods, "run", fail)
    assert main(["methods"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_library_that_transformers_imports_says_nothing(capfd):
    assert main(["methods"]) == 0
    logging.getLogger("torch.utils._pytree").warning("register_constant() is deprecated")
    assert "register_constant" not in capfd.readouterr().err
