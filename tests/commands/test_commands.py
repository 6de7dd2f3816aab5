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

import numpy as np
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
    for name in ("segment", "evaluate", "diagnose"):
        assert "--dtype" in known[name]
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
        (["segment", "example", "a", "--dtype", "float"], "--dtype is 'float'; allowed are auto, float32"),
        (["segment", "example", "a", "--selection-rule", "mine"], "`selection_rule` is 'mine'; allowed are 'paper'"),
        (["segment", "example", "a", "--answer", "No."], "`answer` holds no [SEG]"),
        (["evaluate", "--protocol", "chat", "--output", "x"], "--protocol holds 'chat'; allowed are generation"),
        (["benchmark", "--preset", "cpu"], "--preset is 'cpu'; allowed are cpu-small"),
        (
            ["benchmark", "--preset", "cpu-small", "--num-retained-tokens", "all"],
            "holds all, which is always measured",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_an_answer_is_taken_as_given_and_masks_have_scores(capsys):
    assert main(["segment", "example", "the red circle", "--answer", "It is [SEG]."]) == 0
    printed = capsys.readouterr().out
    assert "answer: It is [SEG].\n" in printed and "score 0.9" in printed and "predicted IoU" in printed


def test_both_kinds_of_tokens_are_shown_for_one_text(capsys, tmp_path):
    from PIL import Image

    from litelvlm.visualization import CONTEXT_COLOUR, SIMILARITY_COLOUR

    path = tmp_path / "overlay.png"
    assert main(["segment", "example", "the red circle", "--output", str(path), "--show-tokens"]) == 0
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for colour in (SIMILARITY_COLOUR, CONTEXT_COLOUR):
        # Outlines are nearly opaque, so they come close to the colour itself
        assert (abs(image - colour).max(axis=-1) < 40).sum() > 500


def test_the_face_is_lazy_and_complete():
    code = (
        "import sys; sys.argv = ['litelvlm']; import litelvlm; "
        "assert 'transformers' not in sys.modules; assert set(litelvlm.__all__) <= set(dir(litelvlm)); "
        "[getattr(litelvlm, name) for name in litelvlm.__all__]; "
        "print(litelvlm.list_pruning_methods(before=True)[:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['")


def test_importing_the_package_registers_with_transformers():
    code = (
        "import litelvlm; from transformers import AutoModel, pipeline; "
        "assert type(AutoModel.from_pretrained(litelvlm.TINY_MODEL)) is litelvlm.LiteLVLMForSegmentation; "
        "pipe = pipeline('referring-segmentation', model=str(litelvlm.TINY_MODEL)); "
        "print(type(pipe) is litelvlm.ReferringSegmentationPipeline, 'fastv' in litelvlm.list_pruning_methods())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("True True\n"), done.stderr


def test_an_unknown_name_of_the_face_is_refused():
    import litelvlm

    with pytest.raises(AttributeError, match="module 'litelvlm' has no attribute 'segmnt'"):
        litelvlm.segmnt  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import litelvlm.litelvlm
