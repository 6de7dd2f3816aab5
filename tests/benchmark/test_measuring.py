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
"""What is measured, for any model and method, and drawn."""

from functools import partial

import pytest
import torch

from litelvlm.benchmark import start_up
from litelvlm.benchmark.candidates import Benchmark
from litelvlm.benchmark.measuring import measure
from litelvlm.benchmark.plots import plot_benchmark

from ..siglip import siglip_vision


def test_a_model_without_masks_is_measured_too(make_model, tiny_preset):
    model = make_model(sam_config=None)
    report = measure(model, tiny_preset(model), num_runs=1, budgets=[4])
    assert "sam_encoder" not in report["rows"][2]["milliseconds"]
    assert report["summary"]["4"]["prefill_speedup"] > 0


def test_a_method_that_looks_at_layers_of_the_vision_tower_is_measured_too(make_model, tiny_preset):
    model = make_model()
    report = measure(model, tiny_preset(model), num_runs=1, methods=["visionzip"], budgets=[5])
    assert report["rows"][2]["method"] == "visionzip" and report["summary"]["5"]["activation_ratio"] > 1


def test_a_model_with_siglips_tower_is_measured_too(make_model, config_values, tiny_preset):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    text = sizes | {"vocab_size": 99, "max_position_embeddings": 20, "bos_token_id": None, "eos_token_id": 1}
    layer = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    model = make_model(
        sam_config=None,
        backbone_config=config_values["backbone_config"] | layer | {"vision_config": siglip_vision()},
        guide_config={"model_type": "siglip", "text_config": text, "vision_config": siglip_vision()},
    )
    report = measure(model, tiny_preset(model), num_runs=1, budgets=[4])
    assert report["rows"][2]["flops"]["guide"] > 0 and report["summary"]["4"]["activation_ratio"] > 1


def test_given_and_stopped_answers_are_compared_with_transformers_in_both_dtypes(make_model, tiny_preset):
    model = make_model().to(torch.float64)
    report = measure(model, tiny_preset(model), num_runs=1, budgets=[4])
    transformers, unpruned, pruned = report["rows"]
    assert not {"stopped_at_seg", "answer_given"} & transformers["milliseconds"].keys()
    assert {"stopped_at_seg", "answer_given"} <= unpruned["milliseconds"].keys()
    naive = {"transformers": transformers["milliseconds"]["end_to_end"], "float32": report["transformers_float32"]}
    for name, spread in naive.items():
        for stage in ("end_to_end", "stopped_at_seg", "answer_given"):
            ratio = spread["median"] / pruned["milliseconds"][stage]["median"]
            assert report["summary"]["4"][f"{stage}_vs_{name}"] == ratio


def test_runs_with_sam_compiled_are_timed_where_asked_and_give_the_same_mask(make_model, tiny_preset, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = make_model()
    report = measure(model, tiny_preset(model), num_runs=1, budgets=[4], compiles=True)
    transformers, _, pruned = (row["milliseconds"] for row in report["rows"])
    assert "compiled" not in transformers and {"compiled", "compiled_answer_given"} <= pruned.keys()
    ratio = transformers["end_to_end"]["median"] / pruned["compiled"]["median"]
    assert report["summary"]["4"]["compiled_vs_transformers"] == ratio

    bench = Benchmark(model, tiny_preset(model))
    (eager,) = bench.run("litelvlm", 4)
    with bench.compiled():
        (compiled,) = bench.run("litelvlm", 4)
    assert "forward" not in vars(model.sam.vision_encoder)
    torch.testing.assert_close(compiled, eager)


def test_a_model_without_sam_has_nothing_to_compile(make_model, tiny_preset):
    model = make_model(sam_config=None)
    with pytest.raises(ValueError, match="no SAM to compile"):
        measure(model, tiny_preset(model), num_runs=1, compiles=True)


def test_from_the_shell_to_the_mask_is_timed_beside_the_bare_imports(monkeypatch):
    commands = {"import torch, transformers": ["-c", "pass"], "a command": ["-c", "import json"]}
    monkeypatch.setattr(start_up, "COMMANDS", commands)
    measured = start_up.measure_start_up(num_runs=1)
    assert measured.keys() == commands.keys()
    assert measured["import torch, transformers"]["ratio"] == 1 and measured["a command"]["median"] > 0


def test_plots_are_drawn(make_model, tiny_preset, tmp_path):
    pytest.importorskip("matplotlib")
    model = make_model()
    report = {"preset": "tiny"} | measure(model, tiny_preset(model), num_runs=1)
    assert all(path.stat().st_size > 1000 for path in plot_benchmark(report, tmp_path))


@pytest.mark.parametrize(
    ("name", "value"), [("num_questions", -1), ("num_questions", 1), ("batch_sizes", [1, 0]), ("batch_sizes", [-2])]
)
def test_numbers_that_are_too_small_are_refused_before_anything_runs(make_model, tiny_preset, name, value):
    model = make_model()
    with pytest.raises(ValueError, match=rf"`{name}` (is|holds) -?\d; allowed are .*integers of at least"):
        measure(model, tiny_preset(model), **{name: value})
