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

import pytest

from litelvlm.benchmark.measuring import measure
from litelvlm.benchmark.plots import plot_benchmark


def test_a_model_without_masks_is_measured_too(make_model, tiny_preset):
    model = make_model(sam_config=None)
    report = measure(model, tiny_preset(model), num_runs=1, budgets=[4])
    assert "sam_encoder" not in report["rows"][2]["milliseconds"]
    assert report["summary"]["4"]["prefill_speedup"] > 0


def test_a_method_that_looks_at_layers_of_the_vision_tower_is_measured_too(make_model, tiny_preset):
    model = make_model()
    report = measure(model, tiny_preset(model), num_runs=1, methods=["visionzip"], budgets=[5])
    assert report["rows"][2]["method"] == "visionzip" and report["summary"]["5"]["activation_ratio"] > 1


def test_plots_are_drawn(make_model, tiny_preset, tmp_path):
    pytest.importorskip("matplotlib")
    model = make_model()
    report = {"preset": "tiny"} | measure(model, tiny_preset(model), num_runs=1)
    assert all(path.stat().st_size > 1000 for path in plot_benchmark(report, tmp_path))


@pytest.mark.parametrize(("name", "value"), [("num_questions", -1), ("batch_sizes", [1, 0]), ("batch_sizes", [-2])])
def test_numbers_that_are_too_small_are_refused_before_anything_runs(make_model, tiny_preset, name, value):
    model = make_model()
    with pytest.raises(ValueError, match=rf"`{name}` (is|holds) -?\d; allowed are integers of at least"):
        measure(model, tiny_preset(model), **{name: value})
