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
"""Costs are exact: operations and cache bytes are counted, so they are asserted; times are not."""

import re
from pathlib import Path

import pytest
import torch

from litelvlm.benchmark.costs import (
    LiveMemory,
    count_flops,
    kv_cache_bytes,
    language_model_macs,
    model_flops,
    num_visual_tokens,
)
from litelvlm.benchmark.counting import count
from litelvlm.benchmark.presets import PRESETS, build_model
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.conversion.key_mappings import LLAVA_TYPES


@pytest.mark.parametrize(("num_retained", "num_text", "tera"), [(576, 124, 4.66), (192, 130, 2.11), (64, 131, 1.27)])
def test_the_papers_operations_come_out_of_its_formula(num_retained, num_text, tera):
    """Published: 4.66, 2.11 and 1.27 T. The number of text tokens is not published; about 128 fits all three."""
    config = PRESETS["glamm-7b"].make_config()
    assert round(language_model_macs(config, num_retained + num_text) / 1e12, 2) == tera
    assert language_model_macs(config, num_retained + 128) / 1e12 == pytest.approx(tera, rel=0.015)


@pytest.mark.parametrize("preset", ["cpu-small", "paligemma2-3b"])
def test_torchs_counter_agrees_with_the_formula(preset):
    """
    Two operations for each multiply-accumulate; rotary angles are a tiny product in some Transformers. PaliGemma 2 has
    fewer key heads than query heads, and more of both than its width holds.
    """
    config = PRESETS[preset].make_config()
    flops = model_flops(config, 20, 192)
    assert flops["prefill"] == pytest.approx(2 * language_model_macs(config, 192 + 20), rel=1e-5)
    assert flops["total"] == sum(flops.values()) - flops["plain_clip"] - flops["total"]


@pytest.mark.parametrize("budget", [192, 64])
def test_clip_with_guide_and_selection_costs_less_than_clip_alone(budget):
    """Without its last layer's attention and MLP, CLIP pays for all that pruning looks at; 2 % are allowed."""
    flops = model_flops(PRESETS["glamm-7b"].make_config(), 128, budget)
    assert flops["clip"] + flops["guide"] + flops["selection"] < 1.02 * flops["plain_clip"]
    assert flops["clip"] + flops["guide"] + flops["selection"] < flops["plain_clip"]


@pytest.mark.parametrize(("method", "stages"), [("visionzip", {"guide", "selection"}), ("fastv", set())])
def test_methods_cost_nothing_in_stages_that_they_do_not_have(method, stages):
    """VisionZip selects without reading the text; FastV selects inside the language model."""
    flops = model_flops(PRESETS["cpu-small"].make_config(), 20, 192, method)
    assert flops.keys() & {"guide", "selection"} == stages
    assert flops.get("guide", 0) == 0 and flops.get("selection", 0) >= 0


def test_siglips_texts_are_counted_with_their_padding():
    config = PRESETS["llava-interleave-7b"].make_config()
    flops = model_flops(config, 128, 243)
    text, tokens = config.guide_config.text_config, 64
    d, m = text.hidden_size, text.intermediate_size
    per_layer = 4 * d * d + 2 * d * m
    # Attention in both directions, and the head of the last position
    attention = 2 * tokens**2 * d
    assert flops["guide"] == 2 * (text.num_hidden_layers * (tokens * per_layer + attention) + d * d)
    # The tower ends before SigLIP's last layer, and no layer is left out: the rest is the guide's head
    assert flops["clip"] > flops["plain_clip"] and model_flops(config, 128, None)["clip"] == flops["plain_clip"]


def test_images_in_crops_are_counted_with_all_their_crops():
    """640 x 480 pixels become 768 x 768: four crops and the whole, and 40 lines of 54 patches with their ends."""
    config = PRESETS["llava-onevision-7b"].make_config()
    assert num_visual_tokens(config) == 729 + 40 * 55 and config.num_retained_tokens == num_visual_tokens(config) // 3
    assert count(PRESETS["llava-onevision-7b"])["num_visual_tokens"] == num_visual_tokens(config)
    flops, one = model_flops(config, 128, 976), model_flops(PRESETS["llava-interleave-7b"].make_config(), 128, 243)
    assert flops["plain_clip"] == 5 * one["plain_clip"] and flops["guide"] == one["guide"]
    # Keys and values of seven queries each are one: 2 * 28 layers * 4 heads of 128 * 2 bytes a token
    assert kv_cache_bytes(config, 1, torch.bfloat16) == 57344
    assert flops["prefill"] == pytest.approx(2 * language_model_macs(config, 128 + 976), rel=1e-5)


def test_windows_and_full_attention_of_qwens_tower_are_counted():
    """640 x 480 pixels become 644 x 476: 34 lines of 46 patches, in windows of at most eight lines and columns."""
    config = PRESETS["qwen2.5-vl-7b"].make_config()
    lines, columns, d, m, tokens = 34, 46, 1280, 3420, 17 * 23
    assert num_visual_tokens(config) == tokens and config.num_retained_tokens == tokens // 3
    # Of each kind of layer one, as all of a kind are equal
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 2, [1]
    flops, patches = model_flops(config, 128, 130), lines * columns
    windows = [min(8, lines - i) * min(8, columns - k) for i in range(0, lines, 8) for k in range(0, columns, 8)]
    layers = 2 * patches * (4 * d * d + 3 * d * m)
    attention = 2 * d * (sum(window**2 for window in windows) + patches**2)
    merger = tokens * (4 * d * 4 * d + 4 * d * 3584)
    assert flops["plain_clip"] == 2 * (patches * 2 * 3 * 14**2 * d + layers + attention + merger)
    # Beside it the guide's CLIP sees the image, and its texts are those of every CLIP
    llava = model_flops(PRESETS["llava-1.5-7b"].make_config(), 128, 192)
    assert flops["clip"] == flops["plain_clip"] + llava["clip"] and flops["guide"] == llava["guide"]
    assert flops["prefill"] == pytest.approx(2 * language_model_macs(config, 128 + 130), rel=1e-5)


@pytest.mark.parametrize("host", ["qwen2_5_vl", "qwen2_vl"])
def test_a_tower_that_reads_values_costs_on_the_meta_device_what_it_costs_on_the_cpu(host):
    sizes = {"num_heads": 2, "depth": 2, "patch_size": 16, "window_size": 128, "fullatt_block_indexes": [1]}
    sizes |= {"hidden_size": 32, "intermediate_size": 48} if host == "qwen2_5_vl" else {"embed_dim": 32}
    sizes |= {"out_hidden_size": 48} if host == "qwen2_5_vl" else {"hidden_size": 48}
    text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}}
    text |= {"num_key_value_heads": 2, "vocab_size": 99}
    clip = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    guide = {"text_config": clip | {"vocab_size": 99}, "vision_config": clip | {"image_size": 32, "patch_size": 8}}
    config = LiteLVLMConfig(
        backbone_config={"model_type": host, "vision_config": sizes, "text_config": text, "image_token_id": 98},
        guide_config={"model_type": "clip", "projection_dim": 16} | guide,
        position_mode="original",
    )
    flops = model_flops(config, 20, 30)
    model, grid = build_model(config, "cpu"), torch.tensor([[1, 30, 40]])
    patches = torch.rand(30 * 40, 2 * 3 * 16**2)
    assert flops["plain_clip"] == count_flops(lambda: model.model.backbone.visual(patches, grid)) > 0
    image = {"pixel_values": patches, "image_grid_thw": grid, "guide_pixel_values": torch.rand(1, 3, 32, 32)}
    assert flops["clip"] == count_flops(lambda: model.encode_image(**image)) > flops["plain_clip"]
    assert model_flops(config, 20, None)["clip"] == flops["plain_clip"]


def test_every_host_has_a_preset_or_costs_what_another_costs():
    counted = {preset.make_config().backbone_config.model_type for preset in PRESETS.values()}
    assert counted == set(LLAVA_TYPES) - {"vipllava"}
    config = PRESETS["cpu-small"].make_config()
    values = config.to_dict()
    values["backbone_config"] |= {"model_type": "vipllava", "vision_feature_layers": [-2, -3, 1]}
    vipllava = LiteLVLMConfig.from_dict(values)
    assert vipllava.vision_feature_layers == [-2, -3, 1]
    assert model_flops(vipllava, 20, 192) == model_flops(config, 20, 192)


def test_the_page_shows_what_is_counted_of_every_preset():
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([\w.-]+)`(?:, and VipLLaVA)? \| (.*) \|$", page, flags=re.MULTILINE)
    counted = {}
    for name, preset in PRESETS.items():
        config, number = preset.make_config(), num_visual_tokens(preset.make_config())
        rows = [preset.num_text_tokens + tokens for tokens in (number, number // 3)]
        cache = [f"{kv_cache_bytes(config, row, preset.dtype) / 1e6:,.0f}" for row in rows]
        macs = [f"{language_model_macs(config, row) / 1e12:.2f}" for row in rows]
        counted[name] = " | ".join([f"{number:,}", f"{number // 3}", *cache, *macs])
    counted.pop("cpu-small")  # which is no host, and is measured
    assert dict(shown) == counted


def test_presets_have_the_published_sizes():
    """
    Parameters in billions: a Llama of 6.7 or 13.0, CLIP ViT-L with its text tower of 0.43, SAM ViT-H of 0.64; a
    Qwen1.5 of 7.72 or a Qwen2 of 7.62, SigLIP so400m of 0.88 without its last layer of 0.015; PaliGemma 2 of 3.03,
    with SigLIP's text tower and head of 0.47; Qwen2-VL and Qwen2.5-VL of 8.29, with a CLIP beside them.
    """
    sizes = {"glamm-7b": 7.85, "lisa-7b": 7.83, "lisa-13b": 14.12, "llava-1.5-7b": 7.19, "llava-interleave-7b": 8.61}
    sizes |= {"llava-onevision-7b": 8.49, "paligemma2-3b": 3.50, "llava-next-7b": 7.19}
    sizes |= {"qwen2-vl-7b": 8.72, "qwen2.5-vl-7b": 8.72}
    assert sizes.keys() == PRESETS.keys() - {"cpu-small"}
    for name, billions in sizes.items():
        preset = PRESETS[name]
        model = build_model(preset.make_config(), "meta", preset.dtype)
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert PRESETS["cpu-small"].make_config().num_patches == 576
    assert PRESETS["paligemma2-3b"].make_config().num_patches == 1024


@pytest.mark.parametrize(("method", "num_tokens"), [("none", 30), ("litelvlm", 30 - 16 + 5)])
def test_cache_bytes_are_those_of_the_cache(make_model, make_batch, method, num_tokens):
    model, batch = make_model(pruning_method=method, num_retained_tokens=5), make_batch(batch_size=1)
    with torch.no_grad():
        layers = model(**batch, use_cache=True).past_key_values.layers
    assert layers[0].keys.shape[2] == num_tokens
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert held == kv_cache_bytes(model.config, num_tokens, torch.float32)


def test_pruning_saves_the_operations_of_the_tokens_it_drops(make_model, make_batch):
    model, batch = make_model(), make_batch(batch_size=1)
    batch.pop("sam_pixel_values")
    pruned, full = (count_flops(lambda b=b: model(**batch, num_retained_tokens=b)) for b in (5, 16))
    # By hand: 4d² + 3dm per dropped token and layer, the head's d times the vocabulary, the projector's two products,
    # and attention, quadratic in the tokens
    layers, d, m, tokens = 2, 48, 64, 30
    per_token = layers * (4 * d**2 + 3 * d * m) + d * 99 + 32 * d + d * d
    attention = 2 * layers * d * (tokens**2 - (tokens - 11) ** 2)
    rotary = 11 * d // 4 // 2  # a product in some versions of Transformers
    assert full - pruned in (2 * (11 * per_token + attention), 2 * (11 * per_token + attention + rotary))


def test_live_memory_is_the_peak_of_what_the_block_makes():
    before = torch.ones(1000)
    with LiveMemory() as memory:
        large = before + 1  # 4000 bytes
        view = large.view(10, 100)
        del large  # the view keeps it
        small = torch.ones(500)  # 2000 bytes
        del small
        other = view * 2  # 4000 bytes
        del view
        other.add_(1)
    assert memory.peak_bytes == 8000
