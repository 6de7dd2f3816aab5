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
"""`litelvlm benchmark` in its smallest form: that it works and reports what it says, not how fast anything is."""

import json

import pytest
import torch

from litelvlm import TINY_MODEL
from litelvlm.benchmark.candidates import ANSWERS, STAGES
from litelvlm.commands.main import main

SUMMARY = {"prefill_speedup", "selection_share", "end_to_end_speedup", "activation_ratio", "flops_ratio"}
SUMMARY |= {f"{stage}_vs_transformers" for stage in ("end_to_end", "stopped_at_seg", "answer_given")}


def test_the_command_writes_every_row_and_the_summary(tmp_path, capsys):
    command = ["benchmark", "--model", str(TINY_MODEL), "--runs", "1", "--output", str(tmp_path / "out")]
    assert main([*command, "--questions", "2", "--batch-sizes", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "prefill" in printed and "2 questions on one image" in printed and "batch of 2, un-pruned: " in printed
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["method"], row["num_retained_tokens"]) for row in report["rows"]] == [
        ("transformers", None),
        ("none", None),
        ("litelvlm", 85),
        ("litelvlm", 28),
    ]
    assert report["summary"].keys() == {"85", "28"}
    for figures in report["summary"].values():
        assert figures.keys() == SUMMARY
        assert figures["flops_ratio"] > 1 and figures["activation_ratio"] > 1
    for row in report["rows"][2:]:
        assert set(row["milliseconds"]) == {*STAGES, *ANSWERS}
        assert all(spread["q1"] <= spread["median"] <= spread["q3"] for spread in row["milliseconds"].values())
        assert row["num_rows"] == 128 + row["num_retained_tokens"]
    assert {"torch", "transformers", "python"} <= report["versions"].keys()
    batches = [(entry["batch_size"], entry["num_retained_tokens"]) for entry in report["throughput"]]
    assert batches == [(1, None), (1, 85), (1, 28), (2, None), (2, 85), (2, 28)]
    assert all(0 < entry["prefill_milliseconds"]["q1"] < entry["milliseconds"]["q3"] for entry in report["throughput"])


def test_seven_billion_parameters_are_counted_without_weights(tmp_path, capsys):
    assert main(["benchmark", "--preset", "glamm-7b", "--device", "meta", "--output", str(tmp_path)]) == 0
    assert "192 of 576 visual tokens" in capsys.readouterr().out
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["num_rows"] for row in rows] == [704, 320, 192]
    assert json.loads((tmp_path / "results.json").read_text())["dtype"] == "bfloat16"
    # 2 * 32 layers * 4096 * 2 bytes a token
    assert [row["kv_cache_bytes"] for row in rows] == [704 * 524288, 320 * 524288, 192 * 524288]
    assert [round(row["language_model_macs"] / 1e12, 2) for row in rows] == [4.69, 2.1, 1.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runs", "0"], "`num_runs` is 0; allowed are integers of at least 1."),
        (["--num-retained-tokens", "999"], "`num_retained_tokens` is 999; allowed are integers from 1 to 256"),
        (["--methods", "best"], "`pruning_method` is 'best'; allowed are"),
        (["--methods", "none"], "The method 'none' is always measured"),
        (["--num-retained-tokens", "all"], "holds all, which is always measured"),
        (["--methods", "litelvlm", "fastv"], "'fastv' drops tokens inside the language model"),
        (["--device", "meta", "--batch-sizes", "1", "--start-up"], "leave it out, or --batch-sizes, --start-up."),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(options, message, capsys):
    assert main(["benchmark", "--model", str(TINY_MODEL), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_shares_of_tokens_and_another_dtype_are_counted(capsys):
    wanted = ["--num-retained-tokens", "144/576", "32", "--dtype", "bfloat16", "--json"]
    assert main(["benchmark", "--preset", "cpu-small", "--device", "meta", *wanted]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dtype"] == "bfloat16" and [row["num_retained_tokens"] for row in report["rows"]] == [None, 144, 32]
    # 20 text tokens; 2 * 4 layers * 768 * 2 bytes a token
    assert report["rows"][1]["kv_cache_bytes"] == (20 + 144) * 12288


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_named(capsys):
    assert main(["benchmark", "--preset", "glamm-7b", "--device", "cuda"]) == 2
    assert "no GPU is available" in capsys.readouterr().err
