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
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.modeling_litelvlm import LiteLVLMModel
from litelvlm.modeling.pruning_litelvlm import (
    PruningSignals,
    class_token_contribution,
    patch_text_similarity,
    register_pruning_method,
    select_litelvlm,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "selection"
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 10}
LLAMA |= {"num_attention_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def reference_selection(similarity, contribution, budget, order="lowest", context=0, raster=False):
    """One sample, in plain NumPy: similarity [T, N], contribution [N]."""
    signed = similarity if order == "lowest" else -similarity
    per_text = (budget - context) // len(similarity)
    aware = set()
    for row in signed:
        aware |= set(np.argsort(row, kind="stable")[:per_text].tolist())
    rest = [i for i in np.argsort(-contribution, kind="stable").tolist() if i not in aware]
    chosen = rest[: budget - len(aware)] + sorted(aware)
    return sorted(chosen) if raster else chosen


def random_signals(batch_size=4, num_texts=3, num_patches=20, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties decide many ranks
    similarity = torch.randint(-4, 5, (batch_size, num_texts, num_patches), generator=generator).to(dtype)
    contribution = torch.randint(0, 6, (batch_size, num_patches), generator=generator).to(dtype)
    text_mask = torch.arange(num_texts) < torch.randint(1, num_texts + 1, (batch_size, 1), generator=generator)
    return PruningSignals(similarity, contribution, text_mask)


@pytest.mark.parametrize("name", ["vit256", "vit576"])
def test_selections_of_the_official_implementation_are_matched_in_order(name):
    meta = json.loads((GOLDEN / f"{name}.json").read_text())
    io, weights = load_file(GOLDEN / f"{name}.io.safetensors"), load_file(GOLDEN / f"{name}.clip.safetensors")
    clip_config = CLIPConfig(**meta["clip_config"])
    clip = CLIPModel(clip_config).eval()
    assert clip.load_state_dict(weights, strict=False).missing_keys == []
    backbone = {"model_type": "llava", "vision_config": clip_config.vision_config.to_dict(), "text_config": LLAMA}
    config = LiteLVLMConfig(
        backbone_config=backbone | {"image_token_index": 5}, guide_config=clip_config.text_config.to_dict()
    )
    model = LiteLVLMModel(config).eval()
    model.backbone.vision_tower, model.guide.visual_projection = clip.vision_model, clip.visual_projection
    guide_tower = model.guide.text_model
    guide_tower.text_model, guide_tower.text_projection = clip.text_model, clip.text_projection

    with torch.no_grad():
        state = model.encode_image(io["pixel_values"])
        torch.testing.assert_close(state.image_features, io["hidden_state"][:, 1:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state.contribution[0], io["contribution"].flatten(), atol=1e-6, rtol=1e-5)
        assert len(meta["cases"]) > 6
        for case in meta["cases"]:
            texts, budget = case["texts"], case["budget"]
            ids, mask = io[f"text{texts}.input_ids"], io[f"text{texts}.attention_mask"]
            tokens, similarity = model.select_tokens(state, ids[None], mask[None], budget, "litelvlm")
            retained = tokens.indices
            torch.testing.assert_close(similarity[0], io[f"text{texts}.similarity"], atol=3e-5, rtol=1e-5)
            assert retained[0].tolist() == io[f"text{texts}.budget{budget}.retained"].flatten().tolist(), case
            aware = retained[0, case["num_context_aware"] :].tolist()
            assert aware == io[f"text{texts}.budget{budget}.similarity_aware"].flatten().tolist(), case


@pytest.mark.parametrize(
    ("budget", "context"), [(k, c) for k in (1, 2, 7, 19, 20) for c in (None, 0, 1, 5) if (c or 0) <= k]
)
@pytest.mark.parametrize("order", ["lowest", "highest"])
@pytest.mark.parametrize("token_order", ["reference", "raster"])
def test_batch_with_absent_texts_equals_the_formula_sample_by_sample(budget, order, context, token_order):
    config = LiteLVLMConfig(
        num_retained_tokens=budget, similarity_order=order, num_context_tokens=context, token_order=token_order
    )
    signals = random_signals(seed=budget)
    selected = select_litelvlm(signals, budget, config)
    for i, row in enumerate(selected.tolist()):
        similarity = signals.similarity[i, signals.text_mask[i]].numpy()
        contribution = signals.contribution[i].numpy()
        raster = token_order == "raster"
        assert row == reference_selection(similarity, contribution, budget, order, context or 0, raster)


def test_one_text_leaves_no_context_and_overlapping_texts_do():
    similarity = torch.arange(9.0)[None, None]  # patch 0 is the lowest
    contribution = torch.tensor([[0.0, 0, 0, 0, 3, 0, 9, 0, 6]])
    config = LiteLVLMConfig(num_retained_tokens=6)
    single = PruningSignals(similarity, contribution, torch.ones(1, 1, dtype=torch.bool))
    assert select_litelvlm(single, 6, config).tolist() == [[0, 1, 2, 3, 4, 5]]
    # The same text three times marks 6 // 3 patches; the context has the other four places
    thrice = PruningSignals(similarity.expand(-1, 3, -1), contribution, torch.ones(1, 3, dtype=torch.bool))
    assert select_litelvlm(thrice, 6, config).tolist() == [[6, 8, 4, 2, 0, 1]]


def test_signals_equal_the_formulas_in_numpy():
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, *shape, generator=generator) for shape in [(12,), (9, 12), (9, 12)])
    patches, texts = torch.randn(2, 9, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    got = class_token_contribution(query, key, value).numpy()
    for b in range(2):
        q, k, v = query[b].numpy(), key[b].numpy(), value[b].numpy()
        logits = k @ q / np.linalg.norm(k, axis=-1) / np.linalg.norm(q) / np.sqrt(12)
        attention = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(got[b], np.linalg.norm(attention[:, None] * v, axis=-1), rtol=1e-5)
        expected = np.array([[patch @ text for patch in patches[b].numpy()] for text in texts[b].numpy()])
        np.testing.assert_allclose(patch_text_similarity(patches, texts)[b].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_selects_like_float32_on_values_that_both_hold(dtype):
    config = LiteLVLMConfig(num_retained_tokens=7)
    expected = select_litelvlm(random_signals(), 7, config)
    assert torch.equal(select_litelvlm(random_signals(dtype=dtype), 7, config), expected)


def test_selection_compiles_into_one_graph_without_waiting_for_the_device():
    config = LiteLVLMConfig(num_retained_tokens=7)

    def select(similarity, contribution, text_mask):
        return select_litelvlm(PruningSignals(similarity, contribution, text_mask), 7, config)

    # A graph break is what `.item()`, `nonzero` or a loop over the data would cause
    compiled = torch.compile(select, fullgraph=True, backend="eager")
    signals = random_signals()
    values = (signals.similarity, signals.contribution, signals.text_mask)
    assert torch.equal(compiled(*values), select(*values))


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'litelvlm' is registered already"):
        register_pruning_method("litelvlm")(lambda signals, budget, config: signals.contribution)
