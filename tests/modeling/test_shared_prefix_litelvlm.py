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
"""Questions about an image: where they keep the same patches, all up to its end is read once for all of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from litelvlm import from_backbone, list_pruning_methods
from litelvlm.modeling.outputs_litelvlm import IMAGE_INPUTS
from litelvlm.modeling.prompt_litelvlm import Prompt
from litelvlm.modeling.pruning_litelvlm import get_pruning_method
from litelvlm.modeling.shared_prefix_litelvlm import SharedPrefix, can_share_prefix
from litelvlm.modeling.versions_litelvlm import CACHE_NAME

from ..hosts import write_interleave, write_llava_next
from ..paligemma import write_paligemma
from ..qwen import write_clip, write_qwen
from ..siglip import gemma_tokenizer

NUM_PATCHES, BUDGET, BEFORE = 16, 6, 5
GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
READ_NO_TEXT = [name for name in list_pruning_methods(before=True) if not get_pruning_method(name).needs_texts]
LENGTHS = [3, 7, 4, 4]  # tokens of four questions, two about each of two images


@pytest.fixture
def asked(make_batch, config_values):
    """Four questions of several lengths about two images, behind the same words, padded on the left."""
    batch, image_id = make_batch(batch_size=4, num_texts=1), config_values["backbone_config"]["image_token_index"]
    words = batch["input_ids"].remainder(80) + 3
    length = BEFORE + NUM_PATCHES + max(LENGTHS)
    ids, mask = torch.zeros(4, length, dtype=torch.long), torch.zeros(4, length, dtype=torch.long)
    for i, number in enumerate(LENGTHS):
        prompt = torch.cat([words[0, :BEFORE], torch.full((NUM_PATCHES,), image_id), words[i, :number]])
        ids[i, -len(prompt) :], mask[i, -len(prompt) :] = prompt, 1
    batch |= {"input_ids": ids, "attention_mask": mask}
    return batch | {name: batch[name][:2] for name in ("pixel_values", "sam_pixel_values")}


def seen(model):
    """A list of what its language model reads from now on: prompts and tokens of each call."""
    calls = []
    model.model.backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    return calls


def with_images_of_their_own(inputs, times=2):
    """The same prompts, where nothing tells that images are the same."""
    return inputs | {n: inputs[n].repeat_interleave(times, 0) for n in IMAGE_INPUTS if n in inputs}


def generated(model, inputs, **options):
    """Tokens, and the logits of each step: random weights may choose the same tokens by other positions."""
    inputs = {name: value for name, value in inputs.items() if name != "sam_pixel_values"}
    output = model.generate(**inputs, **GENERATE, **options, return_dict_in_generate=True, output_logits=True)
    return output.sequences, torch.stack(output.logits, dim=1)


def check_same(got, expected):
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
@pytest.mark.parametrize("method", ["none", *READ_NO_TEXT])
def test_questions_about_an_image_share_what_stands_before_them(make_model, asked, method, position_mode):
    model = make_model(position_mode=position_mode)
    options = {"pruning_method": method, "num_retained_tokens": None if method == "none" else BUDGET}
    expected = generated(model, with_images_of_their_own(asked), **options)
    calls = seen(model)
    check_same(generated(model, asked, **options), expected)
    shared = BEFORE + (NUM_PATCHES if method == "none" else BUDGET)
    assert calls[:3] == [(2, shared), (4, max(LENGTHS)), (4, 1)]
    check_same(generated(model, asked, **options, cache_implementation="static"), expected)
    state = model.encode_image(asked["pixel_values"], pruning_method=method)
    prompts = {name: value for name, value in asked.items() if name != "pixel_values"}
    check_same(generated(model, prompts, image_state=state, **options), expected)
    assert calls.count((2, shared)) == 3


@pytest.mark.parametrize("options", [GENERATE, {"answer": torch.tensor([5, 7, 6])}])
def test_masks_are_those_of_prompts_that_are_read_whole(make_model, asked, options):
    model = make_model(seg_token_id=7)
    if "answer" not in options:
        model.config.seg_token_id = model.segment(**asked, **options, pruning_method="none").sequences[0, -2].item()
    expected = model.segment(**with_images_of_their_own(asked), **options, pruning_method="none")
    calls = seen(model)
    got = model.segment(**asked, **options, pruning_method="none")
    assert calls[0] == (2, BEFORE + NUM_PATCHES)
    assert torch.equal(got.sequences, expected.sequences) and sum(map(len, got.pred_masks)) > 0
    for masks, others in zip(got.pred_masks, expected.pred_masks, strict=True):
        torch.testing.assert_close(masks, others, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_states_cache_and_mask_are_in_the_order_of_the_prompt(make_model, asked):
    model = make_model()
    # As `generate` counts them; without, Transformers' LLaVA counts padding too, and prompts begin elsewhere
    asked["position_ids"] = (asked["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    asked.pop("sam_pixel_values")
    expected = model(**with_images_of_their_own(asked), pruning_method="none")
    calls = seen(model)
    got = model(**asked, pruning_method="none", share_prefix=True)
    assert calls == [(2, BEFORE + NUM_PATCHES), (4, max(LENGTHS))]
    visible = asked["attention_mask"].bool()
    assert got.source_positions is None and got.retained_indices is None
    torch.testing.assert_close(got.logits[visible], expected.logits[visible], rtol=1e-4, atol=1e-4)
    for layer, other in zip(got[CACHE_NAME].layers, expected[CACHE_NAME].layers, strict=True):
        for name in ("keys", "values"):
            ours, theirs = (getattr(one, name).transpose(1, 2)[visible] for one in (layer, other))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # So a call that goes on needs to know of nothing
    more = torch.tensor([[5, 6], [7, 8], [9, 10], [11, 12]])
    mask = torch.cat([asked["attention_mask"], torch.ones_like(more)], dim=1)
    position_ids = asked["position_ids"][:, -1:] + torch.tensor([[1, 2]])
    following = [
        model(more, mask, **{CACHE_NAME: output[CACHE_NAME]}, position_ids=position_ids, pruning_method="none").logits
        for output in (got, expected)
    ]
    torch.testing.assert_close(*following, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_shared_is_read_whole(make_model, asked):
    model = make_model()
    calls = seen(model)
    positions = (asked["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    asked["share_prefix"] = True
    whole = {"pruning_method": "none", "position_ids": positions}
    other_words = asked["input_ids"].clone()
    other_words[1, BEFORE - 1] += 1  # of the longest prompt, which has no padding
    length = other_words.shape[1]
    for changed, tokens in (
        ({"pruning_method": "litelvlm"}, length - NUM_PATCHES + BUDGET),  # patches of their own
        ({"pruning_method": "random"}, length - NUM_PATCHES + BUDGET),  # drawn by the text too
        ({"pruning_method": "fastv"}, length),  # inside the language model
        (whole | {"share_prefix": False}, length),
        (whole | {"use_cache": False}, length),
        (whole | {"output_hidden_states": True}, length),
        (whole | {"output_attentions": True}, length),
        (whole | {"position_ids": None}, length),  # prompts begin at other positions
        (whole | {"input_ids": other_words}, length),
        (whole | {"attention_mask": torch.ones(4, 1, length, length).tril().bool()}, length),  # of pairs of tokens
    ):
        calls.clear()
        with torch.no_grad():
            model(**asked | changed)
        assert calls[:1] in ([(4, tokens)], []), changed  # FastV calls the layers themselves
    text_config = model.model.backbone.language_model.config
    text_config.output_hidden_states = True
    calls.clear()
    with torch.no_grad():
        model(**asked | whole)
    text_config.output_hidden_states = False
    assert calls == [(4, length)]
    model.train()
    calls.clear()
    model(**asked | whole)
    assert calls == [(4, length)]
    model.eval()
    calls.clear()
    asked |= {"share_prefix": False, "pruning_method": "none"}
    model.segment(**asked, **GENERATE)
    model.segment(**asked, answer=torch.tensor([model.config.seg_token_id]))
    assert [call for call in calls if call[1] > 1] == [(4, length), (4, length + 1)]


@torch.no_grad()
def test_a_mask_may_be_of_booleans_or_of_other_numbers(make_model, asked):
    model = make_model()
    asked.pop("sam_pixel_values")
    mask = asked["attention_mask"]
    asked["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    asked |= {"pruning_method": "none", "share_prefix": True}
    expected = model(**asked).logits
    calls = seen(model)
    for dtype in (torch.bool, torch.int32, torch.float32):
        got = model(**asked | {"attention_mask": mask.to(dtype)}).logits
        assert torch.equal(got[mask.bool()], expected[mask.bool()])
    assert calls == 3 * [(2, BEFORE + NUM_PATCHES), (4, max(LENGTHS))]


def test_prompts_that_keep_other_patches_share_nothing():
    ids = torch.tensor([[5, 9, 9, 6], [5, 9, 9, 7]])
    for source, length in (([0, 2, 4, 6], 3), ([0, 2, 5, 6], None)):
        prompt = Prompt(ids, None, None, ids == 9, source_positions=torch.tensor([[0, 2, 4, 6], source]))
        shared = SharedPrefix.find(prompt, num_prompts=2)
        assert (shared and shared.length) == length


@torch.no_grad()
def test_a_graph_reads_prompts_whole(make_model, asked):
    model = make_model()
    asked.pop("sam_pixel_values")
    asked |= {"pruning_method": "none", "share_prefix": True}
    expected = model(**asked | {"share_prefix": False}).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**asked).logits, expected)


@pytest.mark.parametrize(
    ("config", "can"),
    [
        (LlamaConfig(), True),
        (Qwen2Config(), True),
        (MistralConfig(), False),
        (Gemma2Config(), False),
        (Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), False),
        (Qwen3NextConfig(), False),
        (LlamaConfig(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}), True),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), False),
        (Gemma3TextConfig(num_hidden_layers=1, layer_types=["full_attention"]), True),
        (
            Gemma3TextConfig(num_hidden_layers=1, layer_types=["full_attention"], use_bidirectional_attention=True),
            False,
        ),
        (LlamaConfig(output_hidden_states=True), False),
        (LlamaConfig(attn_implementation="eager", output_attentions=True), False),
    ],
)
def test_only_language_models_that_keep_all_keys_and_values_share(config, can):
    assert can_share_prefix(config) == can_share_prefix(config, **{CACHE_NAME: DynamicCache(config=config)}) == can


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mistral", "lfm2", "llama"])
def test_a_language_model_that_does_not_read_in_parts_reads_prompts_whole(make_model, asked, config_values, kind):
    text = config_values["backbone_config"]["text_config"] | {"model_type": kind, "num_key_value_heads": 2}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": BEFORE + NUM_PATCHES + 1}
    rope |= {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    text |= {
        "mistral": {"sliding_window": 8},
        "lfm2": {"layer_types": ["conv", "full_attention"]},
        "llama": {"rope_parameters": rope, "max_position_embeddings": 64},
    }[kind]
    model = make_model(backbone_config=config_values["backbone_config"] | {"text_config": text})
    expected = generated(model, with_images_of_their_own(asked), pruning_method="none")
    calls = seen(model)
    check_same(generated(model, asked, pruning_method="none"), expected)
    assert calls[0] == asked["input_ids"].shape


@pytest.mark.parametrize("kind", ["interleave", "llava_next", "qwen2_5_vl", "paligemma"])
def test_each_host_answers_as_if_it_had_read_every_prompt(processor, config_values, tmp_path, kind):
    if kind == "interleave":
        write_interleave(tmp_path, processor, gemma_tokenizer())
        names = ("lvlm", "siglip")
    elif kind == "llava_next":
        write_llava_next(tmp_path, processor, config_values)
        names = ("llava_next", "clip")
    elif kind == "paligemma":
        write_paligemma("gemma", tmp_path)
        names = ("lvlm", "siglip")
    else:
        write_qwen(kind, tmp_path / "lvlm")
        write_clip(tmp_path / "clip")
        names = ("lvlm", "clip")
    model, own = from_backbone(*(tmp_path / name for name in names), num_retained_tokens=4)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 60, 3), np.uint8))
    texts = ["the dog", "two cats, please"]
    inputs = dict(own(image, texts))
    alone = [generated(model, dict(own(image, text)), pruning_method="none")[1] for text in texts]
    calls = seen(model)
    answers = generated(model, inputs, pruning_method="none")[1]
    torch.testing.assert_close(answers, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert calls[0][0] == (2 if kind == "paligemma" else 1)  # PaliGemma's image sees the question behind it


@settings(max_examples=40, deadline=None)
@given(st.data())
@torch.no_grad()
def test_any_prompts_of_a_language_model_are_read_as_it_reads_them(data):
    """Against the language model itself: groups, lengths, padding on both sides, and words that differ anywhere."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    language_model, draw = LlamaModel(config).eval(), data.draw
    num_images, num_prompts = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    num_patches = draw(st.integers(1, 5))
    common = [draw(st.lists(st.integers(3, 40), max_size=4)) for _ in range(num_images)]
    rows = []
    for i in range(num_images * num_prompts):
        words = common[i // num_prompts] if draw(st.integers(0, 9)) else draw(st.lists(st.integers(3, 40), max_size=4))
        question = draw(st.lists(st.integers(3, 40), max_size=4))
        rows.append((draw(st.integers(0, 2)), words + [45] * num_patches + question))
    length = max(left + len(row) for left, row in rows)
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    for i, (left, row) in enumerate(rows):
        ids[i, left : left + len(row)], mask[i, left : left + len(row)] = torch.tensor(row), 1
    is_image = ids == 45
    visual = torch.randn(num_images, num_patches, 32).repeat_interleave(num_prompts, 0).flatten(0, 1)
    embeds = language_model.embed_tokens(ids).masked_scatter(is_image[..., None], visual)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    shared = SharedPrefix.find(
        Prompt(ids, mask, positions, is_image, is_padded=not mask.all()), num_prompts=num_prompts
    )
    starts_alike = all(rows[i][1][: rows[i][1].index(45)] == common[i // num_prompts] for i in range(len(rows)))
    if starts_alike:
        longest = min(num_patches + min(map(len, common)), length - 1)
        assert longest == (0 if shared is None else shared.length)
    if shared is None:
        return
    cache = draw(st.sampled_from([None, DynamicCache(config=config)]))
    got = shared.run(language_model, embeds, use_cache=True, **{CACHE_NAME: cache})
    expected = language_model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=True)
    visible = mask.bool()
    torch.testing.assert_close(
        got.last_hidden_state[visible], expected.last_hidden_state[visible], rtol=1e-4, atol=1e-4
    )
    keys = [output[CACHE_NAME].layers[-1].keys.transpose(1, 2)[visible] for output in (got, expected)]
    torch.testing.assert_close(*keys, rtol=1e-4, atol=1e-4)
    assert cache is None or got[CACHE_NAME] is cache
