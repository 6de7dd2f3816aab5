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
"""The table of both selection rules: each cell is what its head says, and none is missing."""

import importlib.util
from pathlib import Path

import pytest
import torch

from litelvlm.configuration.configuration_litelvlm import PRUNING_METHODS
from litelvlm.modeling import pruning_litelvlm
from litelvlm.modeling.pruning_litelvlm import PruningSignals, similarity_aware_patches

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_selection_rules.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("measure_selection_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    # Others list the registered methods
    pruning_litelvlm._REGISTRY.pop(module.MIXED)
    PRUNING_METHODS.discard(module.MIXED)


@pytest.mark.parametrize("num_texts", [1, 3])
@pytest.mark.parametrize("rule", ["paper", "released"])
def test_a_mixed_cell_has_the_set_of_one_rule_and_the_contribution_of_the_other(script, make_model, rule, num_texts):
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(4, num_texts, 16, generator=generator)
    paper, cosine = torch.rand(2, 4, 16, generator=generator).unbind()
    text_mask = torch.ones(4, num_texts, dtype=torch.bool)
    signals = PruningSignals(similarity, paper, text_mask, cosine_contribution=cosine)
    config = make_model(selection_rule=rule).config
    aware = similarity_aware_patches(signals, 8, config)
    for i, indices in enumerate(script.select_mixed(signals, 8, config)):
        own = aware[i].nonzero().flatten().tolist()
        other = (cosine if rule == "paper" else paper)[i]
        context = sorted(set(range(16)) - set(own), key=lambda patch: -other[patch])[: 8 - len(own)]
        assert indices.tolist() == context + own


def test_every_pair_of_parts_is_measured_at_every_budget_in_both_protocols(script, make_model):
    config = make_model(num_retained_tokens=1).config
    runs = script.plan("similarity_order=highest,guide_form=expression", config)
    assert len(runs) == len({run.name for run in runs}) == 2 * (1 + 3 * 4)
    assert {run.retained for run in runs} == {16, 5, 4, 2}
    for run, (of_set, of_contribution) in runs.items():
        if run.method != "none":
            assert run.settings == (("selection_rule", of_set), ("similarity_order", "highest"))
            assert run.guide_form == "expression"
            assert (run.method == "litelvlm") == (of_set == of_contribution)


def test_the_table_has_a_line_for_each_run_and_a_column_for_each_split(script, make_model):
    runs = script.plan(script.SHIPPED, make_model(num_retained_tokens=1).config)
    results = [
        {"protocol": run.protocol, "variant": run.variant, "retained": run.retained, "split": split}
        | {"ciou": 50.0, "ciou_low": 40.0, "ciou_high": 60.0}
        for split in ("val", "testA")
        for run in runs
    ]
    head, _, *lines = script.table(results, runs).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]][-3:] == ["contribution", "val", "testA"]
    assert len(lines) == len(runs) and all(line.count("50.0 [40.0, 60.0]") == 2 for line in lines)
