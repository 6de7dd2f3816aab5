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
"""The selection: the official implementation's results, the formulas in NumPy, and what a batch must guarantee."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.modeling_litelvlm import LiteLVLMModel
from litelvlm.modeling.pruning_litelvlm import (
    PruningPlan,
    PruningSignals,
    class_token_contribution,
    cosine_class_token_contribution,
    get_pruning_method,
    list_pruning_methods,
    patch_text_similarity,
    register_layerwise_pruner,
    register_token_selector,
    select_litelvlm,
    similarity_aware_patches,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "selection"
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 10}
LLAMA |= {"num_attention_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def released_set(signed, budget, context):
    """For each text an equal share of the lowest, and the union."""
    per_text = (budget - (context or 0)) // max(len(signed), 1)
    return set().union(*(np.argsort(row, kind="stable")[:per_text].tolist() for row in signed))


def paper_set(signed, budget, context):
    """Of one text half of the budget; of several what the lowest of all have in common."""
    if len(signed) == 0:
        return set()
    share = budget - context if context is not None else budget // 2 if len(signed) == 1 else budget
    return set.intersection(*(set(np.argsort(row, kind="stable")[:share].tolist()) for row in signed))


SETS = {"released": released_set, "paper": paper_set}


def reference_selection(rule, similarity, contribution, budget, order="lowest", context=None, raster=False):
    """One sample, in plain NumPy: similarity [T, N] of the texts that are there, contribution [N]."""
    signed = similarity if order == "lowest" else -similarity
    aware = SETS[rule](signed, budget, context)
    rest = [i for i in np.argsort(-contribution, kind="stable").tolist() if i not in aware]
    chosen = rest[: budget - len(aware)] + sorted(aware)
    return sorted(chosen) if raster else chosen


def random_signals(batch_size=4, num_texts=3, num_patches=20, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties decide many ranks
    similarity = torch.randint(-4, 5, (batch_size, num_texts, num_patches), generator=generator).to(dtype)
    contribution, cosine_contribution = (
        torch.randint(0, 6, (batch_size, num_patches), generator=generator).to(dtype) for _ in range(2)
    )
    text_mask = torch.rand(batch_size, num_texts, generator=generator) < 0.7
    text_mask[0], text_mask[-1] = True, False  # all texts, and none
    return PruningSignals(similarity, contribution, text_mask, cosine_contribution)


@pytest.mark.parametrize("name", ["vit256", "vit576"])
def test_selections_of_the_official_implementation_are_matched_in_order(name):
    meta = json.loads((GOLDEN / f"{name}.json").read_text())
    io, weights = load_file(GOLDEN / f"{name}.io.safetensors"), load_file(GOLDEN / f"{name}.clip.safetensors")
    clip_config = CLIPConfig(**meta["clip_config"])
    clip = CLIPModel(clip_config).eval()
    assert clip.load_state_dict(weights, strict=False).missing_keys == []
    backbone = {"model_type": "llava", "vision_config": clip_config.vision_config.to_dict(), "text_config": LLAMA}
    config = LiteLVLMConfig(
        backbone_config=backbone | {"image_token_index": 5},
        guide_config=clip_config.text_config.to_dict(),
        selection_rule="released",
    )
    model = LiteLVLMModel(config).eval()
    model.backbone.vision_tower = clip.vision_model
    model.guide.take_from(clip)

    with torch.no_grad():
        state = model.encode_image(io["pixel_values"])
        torch.testing.assert_close(state.image_features, io["hidden_state"][:, 1:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state.cosine_contribution[0], io["contribution"].flatten(), atol=1e-6, rtol=1e-5)
        assert len(meta["cases"]) > 6
        for case in meta["cases"]:
            texts, budget = case["texts"], case["budget"]
            ids, mask = io[f"text{texts}.input_ids"], io[f"text{texts}.attention_mask"]
            tokens, signals = model.select_tokens(state, ids[None], mask[None], PruningPlan.resolve(config, budget))
            retained = tokens.indices
            torch.testing.assert_close(signals.similarity[0], io[f"text{texts}.similarity"], atol=3e-5, rtol=1e-5)
            assert retained[0].tolist() == io[f"text{texts}.budget{budget}.retained"].flatten().tolist(), case
            aware = retained[0, case["num_context_aware"] :].tolist()
            assert aware == io[f"text{texts}.budget{budget}.similarity_aware"].flatten().tolist(), case


@pytest.mark.parametrize("rule", list(SETS))
@pytest.mark.parametrize("num_texts", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("budget", "context"), [(k, c) for k in (1, 2, 7, 19, 20) for c in (None, 0, 1, 5) if (c or 0) <= k]
)
@pytest.mark.parametrize("order", ["lowest", "highest"])
@pytest.mark.parametrize("token_order", ["reference", "raster"])
def test_batch_with_absent_texts_equals_the_formula_sample_by_sample(
    rule, num_texts, budget, order, context, token_order
):
    config = LiteLVLMConfig(
        selection_rule=rule,
        num_retained_tokens=budget,
        similarity_order=order,
        num_context_tokens=context,
        token_order=token_order,
    )
    signals = random_signals(num_texts=num_texts, seed=budget)
    selected = select_litelvlm(signals, budget, config)
    contributions = signals.contribution if rule == "paper" else signals.cosine_contribution
    for i, row in enumerate(selected.tolist()):
        similarity = signals.similarity[i, signals.text_mask[i]].numpy()
        raster = token_order == "raster"
        assert row == reference_selection(rule, similarity, contributions[i].numpy(), budget, order, context, raster)


@pytest.mark.parametrize("rule", list(SETS))
@pytest.mark.parametrize("num_texts", [1, 3])
def test_patches_that_are_none_are_never_retained(rule, num_texts):
    """As of images in crops: padded samples select like the same samples without padding."""
    signals, lengths = random_signals(num_texts=num_texts, seed=3), (20, 15, 11, 9)
    signals.patch_mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    config = LiteLVLMConfig(selection_rule=rule, num_retained_tokens=9)
    selected = select_litelvlm(signals, 9, config)
    contributions = signals.contribution if rule == "paper" else signals.cosine_contribution
    for i, length in enumerate(lengths):
        similarity = signals.similarity[i, signals.text_mask[i], :length].numpy()
        expected = reference_selection(rule, similarity, contributions[i, :length].numpy(), 9)
        assert selected[i].tolist() == expected


def test_one_text_leaves_no_context_and_overlapping_texts_do():
    similarity = torch.arange(9.0)[None, None]  # patch 0 is the lowest
    contribution = torch.tensor([[0.0, 0, 0, 0, 3, 0, 9, 0, 6]])
    config = LiteLVLMConfig(num_retained_tokens=6, selection_rule="released")
    single = PruningSignals(similarity, contribution, torch.ones(1, 1, dtype=torch.bool), contribution)
    assert select_litelvlm(single, 6, config).tolist() == [[0, 1, 2, 3, 4, 5]]
    # The same text three times marks 6 // 3 patches; the context has the other four places
    thrice = replace(single, similarity=similarity.expand(-1, 3, -1), text_mask=torch.ones(1, 3, dtype=torch.bool))
    assert select_litelvlm(thrice, 6, config).tolist() == [[6, 8, 4, 2, 0, 1]]


def test_by_the_paper_one_text_takes_half_and_equal_texts_all_of_the_budget():
    similarity = torch.arange(9.0)[None, None]
    contribution = torch.tensor([[0.0, 0, 0, 0, 3, 0, 9, 0, 6]])
    config = LiteLVLMConfig(num_retained_tokens=6)
    single = PruningSignals(similarity, contribution, torch.ones(1, 1, dtype=torch.bool))
    assert select_litelvlm(single, 6, config).tolist() == [[6, 8, 4, 0, 1, 2]]
    # The intersection of equal texts is as large as the budget: nothing is left for context
    thrice = replace(single, similarity=similarity.expand(-1, 3, -1), text_mask=torch.ones(1, 3, dtype=torch.bool))
    assert select_litelvlm(thrice, 6, config).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_by_the_paper_texts_with_nothing_in_common_leave_the_budget_to_context():
    similarity = torch.stack([torch.arange(9.0), -torch.arange(9.0)])[None]
    contribution = torch.tensor([[5.0, 0, 7, 0, 3, 0, 9, 0, 6]])
    signals = PruningSignals(similarity, contribution, torch.ones(1, 2, dtype=torch.bool))
    config = LiteLVLMConfig(num_retained_tokens=4)
    assert not similarity_aware_patches(signals, 4, config).any()
    assert select_litelvlm(signals, 4, config).tolist() == [[6, 2, 8, 0]]


def test_signals_equal_the_formulas_in_numpy():
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, *shape, generator=generator) for shape in [(12,), (9, 12), (9, 12)])
    patches, texts = torch.randn(2, 9, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    got = class_token_contribution(query, key, value).numpy()
    got_cosine = cosine_class_token_contribution(query, key, value).numpy()
    for b in range(2):
        q, k, v = query[b].numpy(), key[b].numpy(), value[b].numpy()
        dots = k @ q
        cosines = dots / np.linalg.norm(k, axis=-1) / np.linalg.norm(q)
        for logits, contribution in ((dots, got[b]), (cosines, got_cosine[b])):
            attention = np.exp(logits / np.sqrt(12)) / np.exp(logits / np.sqrt(12)).sum()
            np.testing.assert_allclose(contribution, np.linalg.norm(attention[:, None] * v, axis=-1), rtol=1e-5)
        expected = np.array([[patch @ text for patch in patches[b].numpy()] for text in texts[b].numpy()])
        np.testing.assert_allclose(patch_text_similarity(patches, texts)[b].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_selects_like_float32_on_values_that_both_hold(dtype):
    for rule in SETS:
        config = LiteLVLMConfig(num_retained_tokens=7, selection_rule=rule)
        expected = select_litelvlm(random_signals(), 7, config)
        assert torch.equal(select_litelvlm(random_signals(dtype=dtype), 7, config), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_peaked_attention_still_ranks_every_patch_in_half_precision(dtype):
    """Logits 60 apart: in half precision all small weights of their softmax would be equal, or 0."""
    key = torch.eye(64)[None].to(dtype) * torch.arange(64)[:, None].to(dtype)
    contribution = class_token_contribution(torch.full((1, 64), 8.0, dtype=dtype), key, torch.ones_like(key))
    assert contribution.argsort(dim=-1).tolist() == [list(range(64))]
    assert contribution.unique().numel() == 64


@pytest.mark.parametrize("rule", list(SETS))
def test_selection_compiles_into_one_graph_without_waiting_for_the_device(rule):
    config = LiteLVLMConfig(num_retained_tokens=7, selection_rule=rule)

    def select(*signals):
        return select_litelvlm(PruningSignals(*signals), 7, config)

    # A graph break is what `.item()`, `nonzero` or a loop over the data would cause
    compiled = torch.compile(select, fullgraph=True, backend="eager")
    signals = random_signals()
    values = (signals.similarity, signals.contribution, signals.text_mask, signals.cosine_contribution)
    assert torch.equal(compiled(*values), select(*values))


@pytest.mark.parametrize("register", [register_token_selector, register_layerwise_pruner])
@pytest.mark.parametrize("name", ["litelvlm", "none", "fastv"])
def test_a_name_is_registered_once(register, name):
    with pytest.raises(ValueError, match=f"'{name}' is registered already"):
        register(name)(lambda *args: None)


def test_methods_are_listed_by_where_they_prune():
    assert list_pruning_methods() == sorted({*list_pruning_methods(before=True), *list_pruning_methods(before=False)})
    assert {"litelvlm", "trim"} <= set(list_pruning_methods(before=True))
    assert list_pruning_methods(before=False) == ["fastv", "pyramiddrop", "sparsevlm"]
    assert "none" not in list_pruning_methods()


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="no pruning method 'trimm'; allowed are cdpruner,"):
        get_pruning_method("trimm")
