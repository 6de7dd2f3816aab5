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
"""The model: equal to the wrapped LVLM un-pruned, and right about rows, caches, batches and masks when it prunes."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPConfig,
    CLIPModel,
    DynamicCache,
    LlavaForConditionalGeneration,
)

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation
from litelvlm.modeling.versions_litelvlm import CACHE_NAME

from ..hosts import WRAPPED, backbone_values, wrapped_lvlm

IMAGE_ID, SEG_ID, NUM_PATCHES = 90, 91, 16
GENERATE = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


def pad_left(batch, num_padding):
    """The same prompts with `num_padding` tokens of padding in front."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    padding = ids.new_zeros(len(ids), num_padding)
    return batch | {"input_ids": torch.cat([padding, ids], 1), "attention_mask": torch.cat([padding, mask], 1)}


def with_segs(batch, *positions):
    """Writes [SEG] at (sample, position) pairs."""
    ids = batch["input_ids"].clone()
    for sample, position in positions:
        ids[sample, position] = SEG_ID
    return batch | {"input_ids": ids}


@pytest.mark.parametrize("kind", list(WRAPPED))
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_unpruned_logits_equal_the_wrapped_model_bit_for_bit(make_model, make_batch, config_values, kind, attention):
    model = make_model(backbone_config=backbone_values(config_values, kind))
    lvlm, batch = wrapped_lvlm(model), pad_left(make_batch(), 2)
    model.set_attn_implementation(attention)
    lvlm.set_attn_implementation(attention)
    with torch.no_grad():
        expected = lvlm(batch["input_ids"], batch["pixel_values"], batch["attention_mask"]).logits
        assert torch.equal(model(**batch, pruning_method="none").logits, expected)
        model.config.pruning_method = "none"
        assert torch.equal(model(**batch).logits, expected)


@pytest.mark.parametrize("kind", list(WRAPPED))
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_pruned_logits_equal_a_language_model_run_on_the_retained_rows(
    make_model, make_batch, config_values, kind, position_mode
):
    """Rows are put together by hand from the wrapped model's own parts, one sample at a time."""
    model = make_model(backbone_config=backbone_values(config_values, kind), position_mode=position_mode)
    lvlm, batch = wrapped_lvlm(model).model, make_batch()
    with torch.no_grad():
        output = model(**batch)
        features = lvlm.get_image_features(batch["pixel_values"]).pooler_output
        for i, retained in enumerate(output.retained_indices):
            ids = batch["input_ids"][i]
            embeds = lvlm.get_input_embeddings()(ids)
            positions = torch.cat([torch.arange(4), 4 + retained, torch.arange(20, 30)])
            rows = torch.cat([embeds[:4], features[i][retained], embeds[20:]])[None]
            position_ids = positions[None] if position_mode == "original" else None
            expected = lvlm.language_model(inputs_embeds=rows, position_ids=position_ids).last_hidden_state
            torch.testing.assert_close(output.last_hidden_state[i : i + 1], expected, atol=1e-5, rtol=1e-5)
            assert output.source_positions[i].tolist() == positions.tolist()


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}])
def test_generation_with_a_cache_equals_generation_without(make_model, make_batch, position_mode, cache):
    model, batch = make_model(position_mode=position_mode), pad_left(make_batch(), 3)
    batch["attention_mask"][1, :5] = 0
    details = {"output_logits": True, "return_dict_in_generate": True, "eos_token_id": None}
    results = []
    for options in ({"use_cache": False}, cache):
        torch.manual_seed(0)  # sampled, as greedy answers of a random model soon repeat one token
        results.append(model.generate(**batch, max_new_tokens=8, do_sample=True, **details, **options))
        torch.manual_seed(0)
        sampled = {"max_new_tokens": 8, "do_sample": True, "eos_token_id": None}
        assert torch.equal(model.segment(**batch, **sampled, **options).sequences, results[-1].sequences)
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert results[0].sequences[:, 33:].unique().numel() > 4
    for without, with_cache in zip(results[0].logits, results[1].logits, strict=True):
        torch.testing.assert_close(with_cache, without, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_without_a_mask_gaps_in_the_positions_are_no_new_sequence(make_model, make_batch, position_mode):
    """Transformers takes a jump of position ids for the start of another sequence if there is no mask and no cache."""
    model, batch = make_model(position_mode=position_mode), make_batch()
    with torch.no_grad():
        expected = model(**batch).logits
        batch.pop("attention_mask")
        for use_cache in (True, False):
            torch.testing.assert_close(model(**batch, use_cache=use_cache).logits, expected, atol=1e-5, rtol=1e-5)


def test_generated_masks_equal_the_teacher_forced_ones(make_model, make_batch):
    model, batch = make_model(), make_batch()
    plain = model.segment(**batch, **GENERATE)
    answers = plain.sequences[:, 30:]
    # Take a token that was generated at two positions of one answer, or at one, for [SEG]
    model.config.seg_token_id = answers[0, 3].item()
    segmented = model.segment(**batch, **GENERATE)
    forced = batch | {"input_ids": plain.sequences, "attention_mask": torch.ones(3, 38, dtype=torch.long)}
    with torch.no_grad():
        output = model(**forced)
    in_answer = (answers == model.config.seg_token_id).sum(1).tolist()
    assert in_answer[0] >= 1 and [len(masks) for masks in segmented.pred_masks] == in_answer
    for name in ("pred_masks", "mask_scores"):
        for got, expected, count in zip(segmented[name], output[name], in_answer, strict=True):
            # The prompt of random ids may hold the token too: its masks come first
            torch.testing.assert_close(got, expected[len(expected) - count :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("everything", [{"pruning_method": "none"}, {"num_retained_tokens": NUM_PATCHES}])
def test_all_tokens_can_be_kept_while_generating(make_model, make_batch, everything):
    model, batch = make_model(), make_batch()
    output = model.segment(**batch, **GENERATE, **everything)
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    if "pruning_method" in everything:
        assert output.retained_indices is None
        expected = wrapped_lvlm(model).generate(**prompt, **GENERATE)
        assert torch.equal(output.sequences, expected)
    else:
        assert output.retained_indices.sort().values.tolist() == [list(range(NUM_PATCHES))] * 3


def test_an_answer_without_seg_has_no_mask(make_model, make_batch):
    model, batch = make_model(), make_batch()
    output = model.segment(**batch, **GENERATE, suppress_tokens=[SEG_ID])
    assert [tuple(masks.shape) for masks in output.pred_masks] == [(0, 16, 16)] * 3
    assert [tuple(embeddings.shape) for embeddings in output.seg_embeddings] == [(0, 16)] * 3
    assert [tuple(scores.shape) for scores in output.mask_scores] == [(0,)] * 3


def test_sampling_is_reproducible_and_beams_are_refused(make_model, make_batch):
    model, batch = make_model(), make_batch()
    sampled = []
    for _ in range(2):
        torch.manual_seed(3)
        sampled.append(model.segment(**batch, max_new_tokens=8, do_sample=True, eos_token_id=None).sequences)
    assert torch.equal(*sampled)
    with pytest.raises(ValueError, match="`num_beams` must be 1"):
        model.segment(**batch, num_beams=2, max_new_tokens=2)


def test_batch_of_four_gives_the_masks_of_four_single_calls(make_model, make_batch):
    """Tolerance: 1e-4 on logits; the answers are equal."""
    model, batch = make_model(), make_batch(batch_size=4)
    batch["guide_attention_mask"][1:3, 1] = 0  # samples with one text among samples with two
    batch = pad_left(batch, 4)
    batch["attention_mask"][2, 4:6] = 0
    model.config.seg_token_id = model.segment(**batch, **GENERATE).sequences[0, 34].item()
    together = model.segment(**batch, **GENERATE)
    assert sum(len(masks) for masks in together.pred_masks) > 0
    for i in range(4):
        single = {key: value[i : i + 1] for key, value in batch.items()}
        visible = single["attention_mask"][0].bool()
        single |= {name: single[name][:, visible] for name in ("input_ids", "attention_mask")}
        alone = model.segment(**single, **GENERATE)
        assert torch.equal(alone.sequences[0, -8:], together.sequences[i, -8:])
        assert torch.equal(alone.retained_indices[0], together.retained_indices[i])
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-4, rtol=1e-4)


def test_several_sentences_for_a_text_guide_by_their_mean(make_model, make_batch):
    model, batch = make_model(), make_batch(num_texts=3)
    ids, mask = batch["guide_input_ids"], batch["guide_attention_mask"]
    with torch.no_grad():
        one_by_one = [model.model.guide(ids[:, j : j + 1], mask[:, j : j + 1])[:, 0] for j in range(3)]
        expected = sum(embeds / embeds.norm(dim=-1, keepdim=True) for embeds in one_by_one) / 3
        together = model.model.guide(ids[:, None], mask[:, None])
        torch.testing.assert_close(together[:, 0], expected)
        # One text in three sentences takes the budget of one text, which an absent second text does not share
        batch |= {"guide_input_ids": ids[:, None].repeat(1, 2, 1, 1)}
        batch |= {"guide_attention_mask": torch.stack([mask, torch.zeros_like(mask)], dim=1)}
        output = model(**batch)
        lowest = output.similarity[:, 0].argsort(dim=-1, stable=True)[:, :3].sort(dim=-1).values
        assert torch.equal(output.retained_indices[:, 3:], lowest)


def test_encoded_images_answer_any_number_of_questions(make_model, make_batch):
    model = make_model()
    batch = make_batch(batch_size=4)
    images = {name: batch.pop(name)[:2] for name in ("pixel_values", "sam_pixel_values")}
    with torch.no_grad():
        state = model.encode_image(**images)
    # Two questions for each of two images: in one call, from the state, and with the images repeated
    shared = model.segment(**batch, **images, **GENERATE)
    reused = model.segment(**batch, image_state=state, **GENERATE)
    repeated = model.segment(**batch, **{k: v.repeat_interleave(2, 0) for k, v in images.items()}, **GENERATE)
    for output in (reused, repeated):
        assert torch.equal(output.sequences, shared.sequences)
        for got, expected in zip(output.pred_masks, shared.pred_masks, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="2 images for 3 prompts"):
        model(**{key: value[:3] for key, value in batch.items()}, image_state=state)


def test_images_are_encoded_once_for_all_questions(make_model, make_batch):
    model, batch = make_model(), make_batch(batch_size=4)
    images = {name: batch.pop(name)[:1] for name in ("pixel_values", "sam_pixel_values")}
    model.config.seg_token_id = model.segment(**batch, **images, **GENERATE).sequences[0, -1].item()
    seen = []
    for encoder in (model.model.backbone.vision_tower.embeddings, model.sam.vision_encoder):
        encoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    model.segment(**batch, **images, **GENERATE)
    assert seen == [1, 1]


def test_last_vision_layer_runs_only_the_projections(make_model, make_batch):
    model, batch = make_model(), make_batch()
    layer, rows = model.model.backbone.vision_tower.encoder.layers[-1], {}
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(layer.self_attn, name).register_forward_hook(
            lambda module, args, output, name=name: rows.__setitem__(name, output.numel() // output.shape[-1] // 3)
        )
    for module in (layer, layer.self_attn, layer.self_attn.out_proj, layer.mlp):
        module.register_forward_hook(lambda *_: pytest.fail("the last layer ran beyond its projections"))
    with torch.no_grad():
        model(**batch)
    assert rows == {"q_proj": 1, "k_proj": NUM_PATCHES, "v_proj": NUM_PATCHES}


def test_budget_and_method_change_per_call(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        for budget in (1, 5, NUM_PATCHES):
            output = model(**batch, num_retained_tokens=budget)
            assert output.logits.shape[1] == 30 - NUM_PATCHES + budget
            assert output.retained_indices.shape == (3, budget)
        assert model(**batch, pruning_method="none").logits.shape[1] == 30
        with pytest.raises(ValueError, match="`num_retained_tokens` is 17"):
            model(**batch, num_retained_tokens=17)
        with pytest.raises(ValueError, match="`pruning_method` is 'x'; allowed are"):
            model(**batch, pruning_method="x")


def test_key_value_cache_holds_the_retained_rows_only(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        output = model(**batch, use_cache=True)
    assert output.past_key_values.get_seq_length() == 30 - NUM_PATCHES + 6


def test_losses_reach_every_part_that_is_trained(make_model, make_batch):
    model, batch = make_model().train(), with_segs(make_batch(), (0, 25), (2, 22), (2, 28))
    mask_labels = [torch.ones(1, 32, 32), torch.ones(0, 32, 32), torch.zeros(2, 32, 32)]
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_ID, -100)
    model.gradient_checkpointing_enable()
    output = model(**batch, labels=labels, mask_labels=mask_labels)
    expected = 1.0 * output.ce_loss + 2.0 * output.bce_loss + 0.5 * output.dice_loss
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    parts = ("lm_head", "seg_head", "sam.vision_encoder", "sam.mask_decoder")
    parts += ("model.backbone.language_model", "model.backbone.multi_modal_projector", "model.backbone.vision_tower")
    for part in parts:
        gradients = [p.grad.abs().sum() for p in model.get_submodule(part).parameters() if p.grad is not None]
        assert sum(gradients) > 0, part


def test_ce_loss_equals_the_wrapped_models_when_nothing_is_pruned(make_model, make_batch):
    model, batch = make_model(), make_batch()
    lvlm = wrapped_lvlm(model)
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_ID, -100)
    with torch.no_grad():
        expected = lvlm(batch["input_ids"], batch["pixel_values"], batch["attention_mask"], labels=labels).loss
        torch.testing.assert_close(model(**batch, labels=labels, pruning_method="none").loss, expected)


def test_gradient_checkpointing_changes_no_gradient(make_model, make_batch):
    batch = with_segs(make_batch(), (0, 25))
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        mask_labels = [torch.ones(1, 16, 16), torch.ones(0, 16, 16), torch.ones(0, 16, 16)]
        model(**batch, mask_labels=mask_labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b | {"guide_input_ids": None}, "`guide_input_ids` is None"),
        (lambda b: b | {"pixel_values": b["pixel_values"][:, None]}, "allowed is .images, channels, height"),
        (lambda b: b | {"input_ids": b["input_ids"].clone().fill_(IMAGE_ID)}, "`batch_num_images` says how many"),
        (lambda b: b | {"pixel_values": torch.randn(6, 3, 32, 32)}, "6 images for 3 prompts"),
        (lambda b: b | {"input_ids": None}, "exactly one of `input_ids` and `inputs_embeds`"),
        (
            lambda b: b | {"input_ids": None, "inputs_embeds": torch.zeros(3, 30, 48)},
            "must hold 16 image placeholders",
        ),
        (lambda b: b | {"sam_pixel_values": b["sam_pixel_values"][:2]}, "SAM has 2 images for 3 prompts"),
        (lambda b: b | {"sam_pixel_values": None, "mask_labels": []}, "`mask_labels` are given without"),
        (lambda b: b | {"mask_labels": [torch.ones(1, 8, 8)] * 3}, "one mask for each"),
    ],
)
def test_contradictory_inputs_are_refused(make_model, make_batch, change, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**change(make_batch()))


@pytest.mark.parametrize("name", sorted({"past_key_values", CACHE_NAME}))
def test_a_cache_is_taken_by_its_names_and_given_back(make_model, make_batch, name):
    model, batch, cache = make_model(), make_batch(), DynamicCache()
    with torch.no_grad():
        output = model(**batch, **{name: cache}, use_cache=True)
    assert output[CACHE_NAME] is cache
    assert cache.get_seq_length() == output.logits.shape[1]
    tokens = model.generate(**batch, **{name: DynamicCache()}, max_new_tokens=2)
    assert torch.equal(tokens, model.generate(**batch, max_new_tokens=2))
    with pytest.raises(ValueError, match="`cache` and `past_key_values` are both given"):
        model.prepare_inputs_for_generation(batch["input_ids"], cache=cache, past_key_values=cache)


def test_a_filled_cache_is_refused_with_an_image(make_model, make_batch):
    model, batch = make_model(), make_batch()
    cache = DynamicCache()
    with torch.no_grad():
        model(**batch, past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="pass the whole conversation"):
        model.generate(**batch, past_key_values=cache, max_new_tokens=2)
    with pytest.raises(ValueError, match="stateful"):
        model.generate(**batch, prompt_lookup_num_tokens=2, max_new_tokens=2)


def test_text_without_image_works(make_model, make_batch):
    model, ids = make_model(), make_batch()["input_ids"][:, 20:]
    lvlm = wrapped_lvlm(model)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, lvlm(input_ids=ids).logits)
        assert torch.equal(model.generate(ids, **GENERATE), lvlm.generate(ids, **GENERATE))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_end_to_end(make_model, make_batch, dtype):
    model, batch = make_model().to(dtype), with_segs(make_batch(), (1, 24))
    with torch.no_grad():
        output = model(**batch)
    assert output.logits.dtype == dtype and output.pred_masks[1].isfinite().all()
    assert model.segment(**batch, **GENERATE).sequences.shape == (3, 38)


def test_forward_compiles_into_one_graph(make_model, make_batch):
    model, batch = make_model().model, make_batch()
    batch.pop("sam_pixel_values")
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(**batch)
        expected = model(**batch)
    assert torch.equal(compiled.retained_indices, expected.retained_indices)
    torch.testing.assert_close(compiled.last_hidden_state, expected.last_hidden_state)


def test_saved_model_is_sharded_and_gives_identical_outputs(make_model, make_batch, tmp_path):
    model, batch = make_model(), with_segs(make_batch(), (1, 24))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded, info = LiteLVLMForSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    # A copy, since the last bit of a product may depend on where in memory a file's weights begin
    loaded = copy.deepcopy(loaded)
    with torch.no_grad():
        expected, got = model(**batch), loaded(**batch)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.pred_masks[1], expected.pred_masks[1])
    assert LiteLVLMForSegmentation.from_pretrained(tmp_path, num_retained_tokens=3).config.num_retained_tokens == 3


def test_layers_on_cpu_and_disk_give_the_same_masks(make_model, make_batch, tmp_path):
    """accelerate's offload: every weight is fetched where it is used, none is read behind its module's back."""
    model, batch = make_model(), make_batch()
    expected = model.segment(**batch, **GENERATE)
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.backbone.vision_tower": "disk", "model.backbone.multi_modal_projector": "cpu"}
    device_map |= {"model.backbone.language_model": "disk", "model.guide": "disk", "lm_head": "cpu"}
    device_map |= {"seg_head": "disk", "sam": "disk"}
    offloaded = LiteLVLMForSegmentation.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert {p.device.type for p in offloaded.model.backbone.language_model.parameters()} == {"meta"}
    got = offloaded.segment(**batch, **GENERATE)
    assert torch.equal(got.sequences, expected.sequences)
    answer = torch.tensor([SEG_ID])
    expected, got = (one.segment(**batch, answer=answer) for one in (model, offloaded))
    for mask, other in zip(got.pred_masks, expected.pred_masks, strict=True):
        assert len(mask) == 1
        torch.testing.assert_close(mask, other)


def test_layers_that_must_stay_together_are_named(make_model):
    model = make_model()
    names = {type(module).__name__ for module in model.modules()}
    assert {"CLIPVisionModel", "LlamaDecoderLayer"} <= set(model._no_split_modules)
    assert set(model._no_split_modules) & names


@pytest.fixture
def lvlm_and_clip(config_values, tmp_path):
    """The folders of a tiny LLaVA and of the CLIP that its vision tower stands for."""
    values = config_values["backbone_config"]
    config = LiteLVLMConfig(**config_values)
    lvlm = LlavaForConditionalGeneration(config.backbone_config).eval()
    vision = {key: value for key, value in values["vision_config"].items() if key != "model_type"}
    clip = CLIPModel(
        CLIPConfig(text_config=config.guide_config.to_dict(), vision_config=vision, projection_dim=16)
    ).eval()
    lvlm.save_pretrained(tmp_path / "lvlm")
    clip.save_pretrained(tmp_path / "clip")
    return tmp_path / "lvlm", tmp_path / "clip"


def test_any_backbone_is_wrapped_without_conversion(lvlm_and_clip, make_batch, tmp_path):
    lvlm = LlavaForConditionalGeneration.from_pretrained(lvlm_and_clip[0])
    clip = CLIPModel.from_pretrained(lvlm_and_clip[1])
    model = LiteLVLMForConditionalGeneration.from_backbone(*lvlm_and_clip, num_retained_tokens=6)
    batch = make_batch()
    batch.pop("sam_pixel_values")
    with torch.no_grad():
        assert torch.equal(
            model(**batch, pruning_method="none").logits,
            lvlm(batch["input_ids"], batch["pixel_values"], batch["attention_mask"]).logits,
        )
        assert torch.equal(model.model.guide.text_model.text_projection.weight, clip.text_projection.weight)
        assert model(**batch).retained_indices.shape == (3, 6)
    model.save_pretrained(tmp_path / "saved")
    again = LiteLVLMForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_without_sam_there_are_text_answers_only(make_model, make_batch):
    model, batch = make_model(sam_config=None), make_batch()
    with pytest.raises(ValueError, match="has no SAM"):
        model.segment(**batch)
    images = batch.pop("sam_pixel_values")
    assert model.generate(**batch, **GENERATE).shape == (3, 38)
    with pytest.raises(ValueError, match="has no SAM"):
        model(**batch, sam_pixel_values=images)


# --- nothing silent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trimm", "litelvm", "None"])
def test_an_unknown_method_is_refused_when_an_image_is_encoded(make_model, make_batch, name):
    model, pixel_values = make_model(), make_batch()["pixel_values"]
    for part in (model, model.model):
        with pytest.raises(ValueError, match=f"`pruning_method` is '{name}'; allowed are"):
            part.encode_image(pixel_values, pruning_method=name)


def test_images_for_sam_are_refused_where_there_is_no_sam(make_model, make_batch, config_values):
    model, batch = make_model(), make_batch()
    images = (batch["pixel_values"], batch["sam_pixel_values"])
    text_only = LiteLVLMForConditionalGeneration(LiteLVLMConfig(**config_values))
    for part in (model.model, text_only):
        with pytest.raises(ValueError, match=r"`sam_pixel_values` is given, but a .* has no SAM"):
            part.encode_image(*images)
    # The same arguments in the same order, wherever there is one
    assert model.encode_image(*images).sam_image_embeddings.shape[0] == 3


def test_none_means_as_configured_in_every_call(make_model, make_batch):
    model, batch = make_model(num_retained_tokens=5), make_batch()
    output = model.segment(**batch, **GENERATE, num_retained_tokens=None, pruning_method=None)
    assert output.retained_indices.shape == (3, 5)
    assert torch.equal(output.sequences, model.segment(**batch, **GENERATE).sequences)
    with torch.no_grad():
        assert model(**batch, num_retained_tokens=None).retained_indices.shape == (3, 5)


def test_both_rules_are_served_by_one_image_state(make_model, make_batch):
    model, batch = make_model(), make_batch(num_texts=1)
    pixel_values = batch.pop("pixel_values")
    batch.pop("sam_pixel_values")
    with torch.no_grad():
        state = model.encode_image(pixel_values)
        found = {}
        for rule in ("paper", "released", "paper"):
            model.config.selection_rule = rule
            output = model(**batch, image_state=state)
            fresh = model(**batch, pixel_values=pixel_values)
            assert torch.equal(output.retained_indices, fresh.retained_indices)
            assert torch.equal(output.contribution, fresh.contribution)
            found[rule] = output.retained_indices
    assert not torch.equal(found["paper"], found["released"])


def test_loading_passes_on_what_is_no_field_and_refuses_what_nobody_knows(lvlm_and_clip, monkeypatch):
    lvlm, clip = lvlm_and_clip
    seen, load = {}, AutoModelForImageTextToText.from_pretrained

    def from_pretrained(name, **kwargs):
        seen.update(kwargs)
        return load(name, **{key: value for key, value in kwargs.items() if key != "revision"})

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    model = LiteLVLMForConditionalGeneration.from_backbone(
        lvlm, clip, num_retained_tokens=6, device_map="cpu", revision="v1", dtype=torch.bfloat16
    )
    assert seen == {"device_map": "cpu", "revision": "v1", "dtype": torch.bfloat16}
    assert (model.dtype, model.config.num_retained_tokens) == (torch.bfloat16, 6)
    with pytest.raises(TypeError, match="num_retained_token"):
        LiteLVLMForConditionalGeneration.from_backbone(lvlm, clip, num_retained_token=6)
    with pytest.raises(ValueError, match="num_retained_token: no fields of LiteLVLMConfig, and `backbone` is loaded"):
        LiteLVLMForConditionalGeneration.from_backbone(load(lvlm), clip, num_retained_token=6)


def test_the_guide_is_fetched_as_the_backbone_is(lvlm_and_clip, monkeypatch, tmp_path):
    lvlm, clip = lvlm_and_clip
    seen, load = [], CLIPModel.from_pretrained
    monkeypatch.setattr(
        CLIPModel, "from_pretrained", lambda name, **kwargs: seen.append(kwargs) or load(name, **kwargs)
    )
    given = {"token": "secret", "cache_dir": str(tmp_path), "local_files_only": True}
    for backbone in (lvlm, LlavaForConditionalGeneration.from_pretrained(lvlm)):
        LiteLVLMForConditionalGeneration.from_backbone(backbone, clip, num_retained_tokens=6, **given)
        assert given.items() <= seen.pop().items()


def test_a_backbone_that_is_loaded_or_offloaded_is_wrapped_as_it_is(lvlm_and_clip, make_batch, tmp_path):
    folder, clip = lvlm_and_clip
    batch = make_batch()
    batch.pop("sam_pixel_values")
    lvlm = LlavaForConditionalGeneration.from_pretrained(folder)
    device_map = {"model.vision_tower": "disk", "model.multi_modal_projector": "cpu"}
    device_map |= {"model.language_model": "disk", "lm_head": "cpu"}
    from_backbone = LiteLVLMForConditionalGeneration.from_backbone
    loaded = from_backbone(lvlm, clip, num_retained_tokens=6)
    assert loaded.model.backbone is lvlm.model
    offloaded = from_backbone(
        folder, clip, num_retained_tokens=6, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert {p.device.type for p in offloaded.model.backbone.language_model.parameters()} == {"meta"}
    with torch.no_grad():
        expected = loaded(**batch).logits
        torch.testing.assert_close(offloaded(**batch).logits, expected)


@pytest.mark.parametrize("size", ["hidden_size", "patch_size", "image_size"])
def test_a_guide_of_another_clip_is_refused_by_the_size_that_differs(lvlm_and_clip, tmp_path, size):
    lvlm, clip = lvlm_and_clip
    other = CLIPConfig.from_pretrained(clip)
    setattr(other.vision_config, size, 2 * getattr(other.vision_config, size))
    CLIPModel(other).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"vision tower of {size} .*, but that of the backbone has"):
        LiteLVLMForConditionalGeneration.from_backbone(lvlm, tmp_path, num_retained_tokens=6)


@pytest.mark.parametrize("option", ["output_scores", "return_dict_in_generate", "output_hidden_states"])
def test_what_segment_would_not_return_is_refused_by_name(make_model, make_batch, option):
    with pytest.raises(ValueError, match=f"does not return what {option} asks for"):
        make_model().segment(**make_batch(), **{option: True})


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("attention_mask", lambda values: values[:, :-3], r"it is to be \(3, 30\)"),
        ("attention_mask", lambda values: values[:1], r"it is to be \(3, 30\)"),
        ("position_ids", lambda _: torch.arange(5)[None], r"it is to be \(3, 30\) or \(1, 30\)"),
        ("labels", lambda values: values[:, :-3], r"it is to be \(3, 30\)"),
        ("labels", lambda values: values.repeat(1, 2), r"it is to be \(3, 30\)"),
        ("labels", lambda values: values[:1], r"it is to be \(3, 30\)"),
        ("guide_input_ids", lambda values: values[:1], r"it is to be \(3, texts, length\)"),
        ("guide_input_ids", lambda values: values[:, 0], r"it is to be \(3, texts, length\)"),
        ("guide_attention_mask", lambda values: values[..., :-1], r"it is to be \(3, 2, 7\)"),
    ],
)
def test_an_argument_of_another_shape_is_named(make_model, make_batch, name, change, expected):
    batch = make_batch(3, num_texts=2)
    batch["labels"] = batch["input_ids"]
    with pytest.raises(ValueError, match=f"`{name}` has shape .*{expected}"):
        make_model()(**batch | {name: change(batch.get(name))})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(8, 8), r"holds a Tensor of shape \(8, 8\); allowed are tensors"),
        (torch.zeros(1, 16, 8), r"holds a Tensor of shape \(1, 16, 8\); allowed are tensors \(num_masks, H, H\)"),
        ([[0, 1]], "holds a list; allowed are tensors"),
    ],
)
def test_mask_labels_of_another_shape_are_named(make_model, make_batch, labels, message):
    with pytest.raises(ValueError, match=f"`mask_labels` {message}"):
        make_model()(**make_batch(2), mask_labels=[labels] * 2)


def test_an_image_is_described_once(make_model, make_batch):
    model, batch = make_model(), make_batch()
    state = model.encode_image(batch["pixel_values"], batch["sam_pixel_values"])
    for name in ("pixel_values", "sam_pixel_values"):
        asked = {key: value for key, value in batch.items() if key == name or not key.endswith("pixel_values")}
        with pytest.raises(ValueError, match=f"`{name}` and `image_state` are both given"):
            model.segment(**asked, image_state=state)


def test_a_vision_tower_of_no_known_clip_asks_for_its_guide(lvlm_and_clip):
    with pytest.raises(ValueError, match=r"No CLIP is known for a vision tower of width 32, .* as `guide`"):
        LiteLVLMForConditionalGeneration.from_backbone(lvlm_and_clip[0], num_retained_tokens=6)


# --- answers that are given ------------------------------------------------------------------------------------------


class Teller:
    """Stands for a processor: knows one answer."""

    def __init__(self, *ids):
        self.ids = torch.tensor(ids)

    def encode_answer(self, answer):
        return self.ids


@pytest.mark.parametrize("earlier", [(), ((1, 25),)])
def test_a_given_answer_equals_the_teacher_forced_pass_bit_for_bit(make_model, make_batch, earlier):
    """
    Of prompts with padding. With [SEG] in an earlier turn, whose mask is not asked for, SAM decodes fewer masks at
    once, which may round differently: to 1e-5 then.
    """
    model, batch = make_model(), with_segs(pad_left(make_batch(), 2), *earlier)
    answer = torch.tensor([7, SEG_ID, 8, SEG_ID, 2])
    given = model.segment(**batch, answer="of two", processor=Teller(*answer.tolist()))
    forced = batch | {
        "input_ids": torch.cat([batch["input_ids"], answer.expand(3, -1)], 1),
        "attention_mask": torch.cat([batch["attention_mask"], torch.ones(3, 5, dtype=torch.long)], 1),
    }
    with torch.no_grad():
        expected = model(**forced)
    assert torch.equal(given.sequences, forced["input_ids"])
    assert torch.equal(given.retained_indices, expected.retained_indices)
    for name in ("pred_masks", "mask_scores", "seg_embeddings"):
        for got, wanted in zip(given[name], expected[name], strict=True):
            assert len(got) == 2
            tolerance = 1e-5 if earlier else 0
            torch.testing.assert_close(got, wanted[-2:], atol=tolerance, rtol=tolerance)


def test_a_given_answer_needs_one_forward_pass(make_model, make_batch):
    model, batch = make_model(), make_batch()
    passes = []
    model.model.backbone.language_model.register_forward_hook(lambda *_: passes.append(1))
    output = model.segment(**batch, answer=torch.tensor([SEG_ID]), pruning_method="none")
    assert len(passes) == 1 and [len(masks) for masks in output.pred_masks] == [1, 1, 1]


def test_several_texts_about_one_image_are_answered_alike(make_model, make_batch):
    model, batch = make_model(), make_batch(batch_size=4)
    images = {name: batch.pop(name)[:1] for name in ("pixel_values", "sam_pixel_values")}
    with torch.no_grad():
        state = model.encode_image(**images)
    answer = torch.tensor([7, SEG_ID])
    together = model.segment(**batch, image_state=state, answer=answer)
    for i in range(4):
        alone = model.segment(**{k: v[i : i + 1] for k, v in batch.items()}, **images, answer=answer)
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "It is [SEG]."}, "pass `processor` too"),
        ({"answer": torch.tensor([7, 8])}, r"`answer` holds no \[SEG\] \(id 91\)"),
        ({"answer": torch.tensor([SEG_ID]), "max_new_tokens": 4, "do_sample": True}, "leave out do_sample, max_new"),
        ({"labels": torch.zeros(3, 30)}, "`labels` are given: these prompts hold their answers already"),
    ],
)
def test_an_answer_that_cannot_be_taken_is_refused(make_model, make_batch, options, message):
    with pytest.raises(ValueError, match=message):
        make_model().segment(**make_batch(), **options)


def test_an_answer_to_a_prompt_that_is_padded_on_the_right_is_refused(make_model, make_batch):
    batch = make_batch()
    batch["attention_mask"][1, -3:] = 0
    with pytest.raises(ValueError, match="padded on the right"):
        make_model().segment(**batch, answer=torch.tensor([SEG_ID]))


# --- habits of Transformers ------------------------------------------------------------------------------------------


def test_image_features_are_those_of_the_wrapped_model(make_model, make_batch):
    model, pixel_values = make_model(), make_batch()["pixel_values"]
    with torch.no_grad():
        expected = wrapped_lvlm(model).model.get_image_features(pixel_values).pooler_output
        for part in (model, model.model):
            for got, wanted in zip(part.get_image_features(pixel_values).pooler_output, expected, strict=True):
                assert torch.equal(got, wanted)


def test_an_image_state_is_shown_in_a_line_and_moves(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        state = model.encode_image(batch["pixel_values"], batch["sam_pixel_values"])
        shown = repr(state)
        assert len(shown) < 400 and "\n" not in shown and "image_features=(3, 16, 32)" in shown and "cpu" in shown
        half = state.to(dtype=torch.bfloat16)
        assert half.image_features.dtype == half.sam_image_embeddings.dtype == torch.bfloat16
        assert state.image_features.dtype == torch.float32  # a copy
        state.is_patch = torch.ones(3, 16, dtype=torch.bool)
        assert state.to("cpu", torch.float16).is_patch.dtype == torch.bool
        assert state.to("meta").contribution.device.type == "meta"
