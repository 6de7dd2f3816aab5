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
"""The candidates of a benchmark: what each makes, and that the model is the same before and after."""

from types import SimpleNamespace

import pytest
import torch

from litelvlm import from_backbone
from litelvlm.benchmark.candidates import Benchmark
from litelvlm.benchmark.costs import model_flops
from litelvlm.benchmark.measuring import measure
from litelvlm.benchmark.presets import PRESETS

from ..hosts import backbone_values
from ..paligemma import write_paligemma
from ..sam2 import SAM2


@pytest.mark.parametrize("decoder", [{}, {"sam_config": SAM2}], ids=["SAM", "SAM 2"])
def test_masks_of_a_pruned_run_are_there_at_full_size(make_model, tiny_preset, decoder):
    model = make_model(**decoder)
    flops = model_flops(model.config, 8, 5)
    assert flops["sam_encoder"] > flops["mask_decoder"] > 0
    bench = Benchmark(model, tiny_preset(model))
    for method, budget in (("transformers", None), ("none", None), ("litelvlm", 5)):
        masks = bench.run(method, budget)
        assert [tuple(mask.shape) for mask in masks] == [(1, 480, 640)]
        assert "selection" in bench.milliseconds() or method != "litelvlm"


def test_both_ways_without_pruning_give_the_same_mask(make_model, tiny_preset):
    model = make_model()
    bench = Benchmark(model, tiny_preset(model))
    with torch.no_grad():
        expected, got = (bench.run(method, None)[0] for method in ("transformers", "none"))
    assert torch.equal(got, expected) and 0 < got.float().mean() < 1


@pytest.mark.parametrize("host", ["vipllava", "paligemma"])
def test_other_lvlms_are_compared_with_their_own_class(make_model, config_values, tiny_preset, tmp_path, host):
    if host == "vipllava":
        model = make_model(sam_config=None, backbone_config=backbone_values(config_values, host))
    else:
        write_paligemma("gemma", tmp_path)
        model, _ = from_backbone(tmp_path / "lvlm", tmp_path / "siglip", num_retained_tokens=5)
    bench = Benchmark(model, tiny_preset(model))
    with torch.no_grad():
        expected, got = (bench.run(method, None) for method in ("transformers", "none"))
    assert torch.equal(got, expected)
    assert measure(model, tiny_preset(model), num_runs=1, budgets=[5])["summary"]["5"]["activation_ratio"] > 1


def test_lvlms_whose_images_differ_in_tokens_are_counted_only():
    model = SimpleNamespace(config=PRESETS["llava-next-7b"].make_config())
    with pytest.raises(ValueError, match=r"'llava_next', whose images differ .* counted, by `--device meta`"):
        Benchmark(model, PRESETS["llava-next-7b"])


def test_the_model_is_left_as_it_was(make_model, tiny_preset):
    model = make_model()
    bench = Benchmark(model, tiny_preset(model))
    bench.run("transformers", None)  # Transformers hangs hooks of its own into layers whose states are asked for
    bench.clock.close()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    measure(model, tiny_preset(model), num_runs=1, budgets=[5])
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert len(model.model.guide._forward_hooks) == 0 and "_encode" not in vars(model.model)
