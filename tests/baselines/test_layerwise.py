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
"""Methods that prune inside the language model: right about tokens, caches and batches, against plain NumPy."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache

from litelvlm.baselines import average_tokens
from litelvlm.baselines.fastv import fastv_cuts
from litelvlm.baselines.pyramiddrop import pyramiddrop_cuts
from litelvlm.baselines.sparsevlm import sparsevlm_cuts
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.pruning_litelvlm import list_pruning_methods

IMAGE_ID, NUM_PATCHES = 90, 16
INSIDE = list_pruning_methods(before=False)
CUTS = {"fastv": fastv_cuts, "pyramiddrop": pyramiddrop_cuts, "sparsevlm": sparsevlm_cuts}
GENERATE = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def make_inside_model(make_model, config_values):
    """As `make_model`, with a language model of 6 layers and two query heads to each key head."""
    backbone = config_values["backbone_config"]
    text = backbone["text_config"] | {"num_hidden_layers": 6, "num_key_value_heads": 2}
    return lambda **overrides: make_model(backbone_config=backbone | {"text_config": text}, **overrides)


def pad_left(batch, num_padding):
    ids, mask = batch["input_ids"], batch["attention_mask"]
    padding = ids.new_zeros(len(ids), num_padding)
    return batch | {"input_ids": torch.cat([padding, ids], 1), "attention_mask": torch.cat([padding, mask], 1)}


def without_masks(batch):
    return {name: value for name, value in batch.items() if name != "sam_pixel_values"}


def reference_raters(embeds):
    """embeds [30, hidden] of a prompt whose patches are tokens 4 to 19: the tokens behind them that rate."""
    visual, texts = embeds[4:20], embeds[20:]
    relevance = np.zeros(len(texts))
    for v in visual:
        logits = np.array([v @ t for t in texts])
        relevance += np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() / len(visual)
    return [20 + i for i in range(len(texts)) if relevance[i] > relevance.mean()]


def reference_forward(model, name, embeds, cuts):
    """
    One sample, one layer at a time and each with its own mask and positions, attention from the eager backend.
    embeds [1, 30, hidden]; returns the final hidden states and the tokens that are left.
    """
    language_model = model.model.backbone.language_model
    raters = reference_raters(embeds[0].double().numpy()) if name == "sparsevlm" else [29]
    hidden_states, tokens, weights = embeds, list(range(30)), np.empty(0)
    for index, layer in enumerate(language_model.layers):
        if index in dict(cuts):
            if name == "pyramiddrop":  # asks in the layer that is to come, of all tokens that there still are
                weights = attention_weights(language_model, layer, hidden_states, tokens)
            asked = np.mean([weights[tokens.index(rater)] for rater in raters], axis=0)
            by_score = [i for i in np.argsort(-asked, kind="stable") if 4 <= tokens[i] < 20]
            best = by_score[: dict(cuts)[index]]
            left = [i for i, token in enumerate(tokens) if not 4 <= token < 20 or i in best]
            hidden_states, tokens = hidden_states[:, left], [tokens[i] for i in left]
        weights = attention_weights(language_model, layer, hidden_states, tokens)
        hidden_states = layer(hidden_states, **mask_and_positions(language_model, hidden_states, tokens))
    return language_model.norm(hidden_states), tokens


def mask_and_positions(language_model, hidden_states, tokens):
    mask = torch.full((len(tokens), len(tokens)), torch.finfo(torch.float32).min).triu(1)[None, None]
    embeddings = language_model.rotary_emb(hidden_states, torch.tensor(tokens)[None])
    return {"attention_mask": mask, "position_embeddings": embeddings}


def attention_weights(language_model, layer, hidden_states, tokens):
    """The mean over heads [R, R] of what the eager backend gives."""
    normed = layer.input_layernorm(hidden_states)
    weights = layer.self_attn(normed, **mask_and_positions(language_model, hidden_states, tokens))[1]
    return weights[0].mean(dim=0).numpy()


@pytest.mark.parametrize("budget", [2, 5, 11])
@pytest.mark.parametrize("name", INSIDE)
def test_batch_equals_the_formula_layer_by_layer(make_inside_model, make_batch, name, budget):
    model, batch = make_inside_model(pruning_method=name), make_batch()
    cuts = CUTS[name](budget, model.config)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**batch, num_retained_tokens=budget)
        assert output.logits.shape[1] == 30 - NUM_PATCHES + cuts[-1][1]
        features = model.model.backbone.get_image_features(batch["pixel_values"]).pooler_output
        for i in range(3):
            embeds = model.get_input_embeddings()(batch["input_ids"][i : i + 1]).clone()
            embeds[:, 4:20] = features[i]
            expected, tokens = reference_forward(model, name, embeds, cuts)
            assert output.source_positions[i].tolist() == tokens
            assert output.retained_indices[i].tolist() == [token - 4 for token in tokens if 4 <= token < 20]
            torch.testing.assert_close(output.last_hidden_state[i : i + 1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_with_all_tokens_kept_logits_equal_the_unpruned_model(make_inside_model, make_batch, name, attention):
    model, batch = make_inside_model(), pad_left(make_batch(), 2)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        expected = model(**batch, pruning_method="none").logits
        for use_cache in (True, False):
            got = model(**batch, pruning_method=name, num_retained_tokens=NUM_PATCHES, use_cache=use_cache)
            torch.testing.assert_close(got.logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("masked", [True, False])
def test_answers_without_a_cache_need_no_padding(make_inside_model, make_batch, name, masked):
    model, batch = make_inside_model(pruning_method=name), make_batch()
    if not masked:
        del batch["attention_mask"]
    options = {"max_new_tokens": 8, "eos_token_id": None, "suppress_tokens": [IMAGE_ID]}
    without, with_cache = (model.generate(**batch, use_cache=use_cache, **options) for use_cache in (False, True))
    assert torch.equal(without, with_cache)
    assert torch.equal(model.segment(**batch, use_cache=False, **options).sequences, without)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_generation_with_a_cache_equals_generation_without(make_inside_model, make_batch, name, position_mode):
    model = make_inside_model(pruning_method=name, position_mode=position_mode)
    batch = pad_left(make_batch(), 3)
    batch["attention_mask"][1, :5] = 0
    details = {"output_logits": True, "return_dict_in_generate": True, "eos_token_id": None}
    details["suppress_tokens"] = [IMAGE_ID]  # which no answer can hold
    results = []
    for use_cache in (False, True):
        torch.manual_seed(0)  # sampled, as greedy answers of a random model soon repeat one token
        results.append(model.generate(**batch, max_new_tokens=8, do_sample=True, use_cache=use_cache, **details))
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert results[0].sequences[:, 33:].unique().numel() > 4
    for without, with_cache in zip(results[0].logits, results[1].logits, strict=True):
        torch.testing.assert_close(with_cache, without, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", INSIDE)
def test_batch_with_padding_gives_the_masks_of_single_calls(make_inside_model, make_batch, name):
    model, batch = make_inside_model(pruning_method=name), pad_left(make_batch(batch_size=4), 4)
    batch["attention_mask"][2, 4:6] = 0
    model.config.seg_token_id = model.segment(**batch, **GENERATE).sequences[0, -8].item()
    together = model.segment(**batch, **GENERATE)
    assert sum(len(masks) for masks in together.pred_masks) > 0
    for i in range(4):
        single = {key: value[i : i + 1] for key, value in batch.items()}
        visible = single["attention_mask"][0].bool()
        single |= {key: single[key][:, visible] for key in ("input_ids", "attention_mask")}
        alone = model.segment(**single, **GENERATE)
        assert torch.equal(alone.sequences[0, -8:], together.sequences[i, -8:])
        assert torch.equal(alone.retained_indices[0], together.retained_indices[i])
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", INSIDE)
def test_without_a_mask_gaps_in_the_positions_are_no_new_sequence(make_inside_model, make_batch, name):
    """Transformers takes a jump of position ids for the start of another sequence if there is no mask and no cache."""
    model, batch = make_inside_model(pruning_method=name), make_batch()
    with torch.no_grad():
        expected = model(**batch).logits
        batch.pop("attention_mask")
        for use_cache in (True, False):
            torch.testing.assert_close(model(**batch, use_cache=use_cache).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INSIDE)
def test_each_layer_caches_the_rows_that_it_has_seen(make_inside_model, make_batch, name):
    model, batch, cache = make_inside_model(pruning_method=name), make_batch(), DynamicCache()
    with torch.no_grad():
        returned = model(**batch, past_key_values=cache, use_cache=True).past_key_values
    counts = [NUM_PATCHES] * 6
    for layer, count in CUTS[name](6, model.config):
        counts[layer:] = [count] * (6 - layer)
    for same in (cache, returned):
        assert [same.get_seq_length(layer) for layer in range(6)] == [30 - NUM_PATCHES + count for count in counts]
    assert average_tokens(name, 6, model.config) == sum(counts) / 6


@pytest.mark.parametrize("name", INSIDE)
def test_beams_keep_each_others_prompts(make_inside_model, make_batch, name):
    model, batch = make_inside_model(pruning_method=name), without_masks(make_batch())
    beams = model.generate(**batch, **GENERATE, num_beams=3)
    for i in range(3):
        single = {key: value[i : i + 1] for key, value in batch.items()}
        assert torch.equal(model.generate(**single, **GENERATE, num_beams=3)[0], beams[i])


@pytest.mark.parametrize("name", INSIDE)
def test_text_without_image_is_answered_as_ever(make_inside_model, make_batch, name):
    model, ids = make_inside_model(), make_batch()["input_ids"][:, 20:]
    expected = model.generate(ids, **GENERATE, pruning_method="none")
    assert torch.equal(model.generate(ids, **GENERATE, pruning_method=name), expected)


@pytest.mark.parametrize("name", INSIDE)
def test_gradients_reach_the_language_model_with_and_without_checkpointing(make_inside_model, make_batch, name):
    batch, gradients = without_masks(make_batch()), []
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_ID, -100)
    for checkpointing in (False, True):
        model = make_inside_model(pruning_method=name).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch, labels=labels).loss.backward()
        parameters = model.model.backbone.language_model.named_parameters()
        gradients.append({name: p.grad for name, p in parameters if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert {f"layers.{i}.mlp.up_proj.weight" for i in range(6)} <= gradients[0].keys()
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient, msg=parameter)


@pytest.mark.parametrize("name", INSIDE)
def test_half_precision_runs_end_to_end(make_inside_model, make_batch, name):
    model, batch = make_inside_model(pruning_method=name).to(torch.bfloat16), make_batch()
    assert model.segment(**batch, **GENERATE).sequences.shape == (3, 38)


@pytest.mark.parametrize("name", INSIDE)
def test_layers_on_disk_give_the_same_answers(make_inside_model, make_batch, name, tmp_path):
    """accelerate binds `forward` of the language model to all of its layers; a segment must not run that."""
    model, batch = make_inside_model(pruning_method=name), make_batch()
    expected = model.segment(**batch, **GENERATE)
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.backbone.vision_tower": "cpu", "model.backbone.multi_modal_projector": "cpu"}
    device_map |= {"model.backbone.language_model": "disk", "model.guide": "cpu", "lm_head": "cpu"}
    device_map |= {"seg_head": "cpu", "sam": "cpu"}
    offloaded = type(model).from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert torch.equal(offloaded.segment(**batch, **GENERATE).sequences, expected.sequences)


@pytest.mark.parametrize("name", INSIDE)
def test_what_layers_of_different_lengths_do_not_allow_is_refused(make_inside_model, make_batch, name):
    model, batch = make_inside_model(pruning_method=name), make_batch()
    static = StaticCache(config=model.config.get_text_config(), max_cache_len=64)
    with pytest.raises(ValueError, match="allowed is a DynamicCache"):
        model(**batch, past_key_values=static, use_cache=True)
    with pytest.raises(ValueError, match="allowed is a DynamicCache"):
        model.generate(**without_masks(batch), **GENERATE, cache_implementation="static")
    with pytest.raises(ValueError, match="`output_hidden_states` is set"):
        model(**batch, output_hidden_states=True)
    filled = DynamicCache()
    with torch.no_grad():
        model(**batch, past_key_values=filled, use_cache=True)
    with pytest.raises(ValueError, match="is filled already"):
        model(**batch, past_key_values=filled, use_cache=True)


def config_of(config_values, num_layers, num_patches=576):
    backbone = config_values["backbone_config"]
    text = backbone["text_config"] | {"num_hidden_layers": num_layers}
    vision = backbone["vision_config"] | {"image_size": 8 * int(num_patches**0.5)}
    return LiteLVLMConfig(
        **config_values | {"backbone_config": backbone | {"text_config": text, "vision_config": vision}}
    )


def test_sparsevlm_follows_its_published_tables(config_values):
    config = config_of(config_values, 32)
    assert sparsevlm_cuts(192, config) == [(2, 300), (6, 200), (15, 110)]
    assert sparsevlm_cuts(128, config) == [(2, 303), (6, 110), (15, 36)]
    assert sparsevlm_cuts(64, config) == [(2, 66), (6, 30), (15, 17)]
    assert sparsevlm_cuts(32, config) == [(2, 33), (6, 15), (15, 8)]
    assert sparsevlm_cuts(85, config_of(config_values, 4, 256)) == [(1, 133), (2, 88), (3, 49)]
    for budget in range(1, 577):
        counts = [count for _, count in sparsevlm_cuts(budget, config)]
        assert 576 >= counts[0] >= counts[1] >= counts[2] >= 1


def test_pyramiddrop_halves_its_tokens_as_published(config_values):
    config = config_of(config_values, 32)
    assert pyramiddrop_cuts(168, config) == [(8, 288), (16, 144), (24, 72)]
    assert average_tokens("pyramiddrop", 168, config) == 270
    assert pyramiddrop_cuts(576, config) == [(8, 576), (16, 576), (24, 576)]
    assert [layer for layer, _ in pyramiddrop_cuts(6, config_of(config_values, 4))] == [1, 2, 3]
    assert [layer for layer, _ in pyramiddrop_cuts(6, config_of(config_values, 6))] == [2, 3, 4]


@pytest.mark.parametrize("num_layers", [4, 6, 32, 40])
def test_pyramiddrop_keeps_the_budget_on_average_from_its_first_cut_on(config_values, num_layers):
    config = config_of(config_values, num_layers)
    for budget in range(1, 577):
        (start, first), (second_layer, second), (third_layer, third) = pyramiddrop_cuts(budget, config)
        counts = [first] * (second_layer - start) + [second] * (third_layer - second_layer)
        counts += [third] * (num_layers - third_layer)
        assert 576 >= first >= second >= third >= 1
        assert abs(sum(counts) / len(counts) - budget) < 1


def test_average_tokens_follow_where_a_method_prunes(config_values):
    config = config_of(config_values, 32)
    assert average_tokens("trim", 192, config) == 192
    assert average_tokens("none", None, config) == average_tokens("none", 576, config) == 576
    assert average_tokens("fastv", 192, config) == (2 * 576 + 30 * 192) / 32
    averages = [average_tokens("sparsevlm", budget, config) for budget in (192, 128, 64)]
    assert averages == [188.1875, 123.9375, 61.71875]
    with pytest.raises(ValueError, match="allowed are"):
        average_tokens("x", 192, config)


@pytest.mark.parametrize(("name", "num_layers"), [("fastv", 1), ("pyramiddrop", 3), ("sparsevlm", 3)])
def test_too_few_layers_are_refused(config_values, name, num_layers):
    with pytest.raises(ValueError, match=f"The language model has {num_layers} layer"):
        CUTS[name](6, config_of(config_values, num_layers))
    assert fastv_cuts(6, config_of(config_values, 2)) == [(1, 6)]
