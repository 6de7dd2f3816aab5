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
"""Qwen2.5-VL and Qwen2-VL, whose tower knows no text, with a CLIP beside it as the guide, against Transformers."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from litelvlm import LiteLVLMConfig, LiteLVLMForSegmentation, LiteLVLMProcessor, from_backbone
from litelvlm.commands.loading import parse_budget
from litelvlm.configuration.configuration_litelvlm import TEXTLESS_TOWERS
from litelvlm.conversion import convert
from litelvlm.conversion.export import VisionSide
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.evaluation.clip import load_clip
from litelvlm.modeling.guide_external_litelvlm import map_onto_grids
from litelvlm.modeling.guide_litelvlm import default_guide
from litelvlm.modeling.outputs_litelvlm import IMAGE_INPUTS
from litelvlm.modeling.pruning_litelvlm import retained_patches
from litelvlm.modeling.versions_litelvlm import CACHE_NAME
from litelvlm.serving.engines import encode
from litelvlm.verification import check_forward

from ..qwen import HOSTS, write_clip, write_qwen
from ..without_package import check_loads_without_the_package

SIZES = [(40, 24), (24, 64), (32, 32)]  # height, width: 5 x 3, 3 x 8 and 4 x 4 tokens
GRIDS = [[5, 3], [3, 8], [4, 4]]
QUESTIONS = ["the dog", "two cats, please", "the bird"]
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)) for i, size in enumerate(SIZES)
]
GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
OF_LVLM = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, request):
    """A tiny Qwen-VL, saved with its processor, its CLIP, and the folder with both."""
    folder = tmp_path_factory.mktemp("qwen")
    lvlm, own = write_qwen(getattr(request, "param", HOSTS[0]), folder / "lvlm")
    return lvlm, own, write_clip(folder / "clip"), folder


@pytest.fixture
def wrapped(qwen):
    return from_backbone(qwen[3] / "lvlm", qwen[3] / "clip", num_retained_tokens=6)


def generated(model, inputs, **options):
    """Tokens and the logits of each step: random weights may choose the same tokens by other positions."""
    options = GENERATE | options
    output = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    return output.sequences, torch.stack(output.logits, dim=1)


def of_lvlm(inputs, config):
    """What the LVLM itself takes of the processor's inputs."""
    kinds = (inputs["input_ids"] == config.image_token_id).int()
    return {name: inputs[name] for name in OF_LVLM} | {"mm_token_type_ids": kinds}


@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
def test_inputs_are_those_of_its_own_processor(qwen, wrapped):
    _, own, _, _ = qwen
    model, processor = wrapped
    for image, question, (height, width) in zip(IMAGES, QUESTIONS, GRIDS, strict=True):
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = own.apply_chat_template(messages, add_generation_prompt=True)
        theirs = own(images=image, text=prompt, return_tensors="pt")
        ours = processor(image, question)
        for name in OF_LVLM:
            assert torch.equal(ours[name], theirs[name]), name
        assert int((ours["input_ids"] == model.config.image_token_id).sum()) == height * width
        assert set(ours) == set(processor.model_input_names)
    assert model.config.has_external_guide and model.config.position_mode == "original"


def test_the_guide_sees_the_whole_image(wrapped):
    """CLIP's own processor would crop a wide image to its middle."""
    wide = np.zeros((24, 64, 3), np.uint8)
    wide[:, :8] = 255
    pixels = wrapped[1](Image.fromarray(wide), "the dog")["guide_pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    is_light = pixels[0].mean(dim=(0, 1)) > pixels.mean()
    assert is_light[:4].all() and not is_light[5:].any()


@torch.no_grad()
@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
@pytest.mark.parametrize("number", [1, 3])
def test_without_pruning_logits_and_answers_are_qwens(qwen, wrapped, number):
    lvlm = qwen[0]
    model, processor = wrapped
    inputs = processor(IMAGES[:number], QUESTIONS[:number])
    theirs = of_lvlm(inputs, model.config)
    assert bool(theirs["attention_mask"].all()) == (number == 1)  # of three images two are padded, on the left
    assert torch.equal(model(**inputs, pruning_method="none").logits, lvlm(**theirs).logits)
    for ours, expected in zip(generated(model, inputs, pruning_method="none"), generated(lvlm, theirs), strict=True):
        assert torch.equal(ours, expected)


@torch.no_grad()
@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
@pytest.mark.parametrize("i", range(3))
def test_retained_tokens_reach_the_language_model_with_their_rows_and_columns(qwen, wrapped, i):
    """The prompt assembled by hand from Qwen's own features and positions."""
    lvlm = qwen[0]
    model, processor = wrapped
    inputs = processor(IMAGES[i], QUESTIONS[i])
    output = model(**inputs)
    retained = output.retained_indices[0]
    assert len(set(retained.tolist())) == 6 and output.similarity.shape == (1, 1, GRIDS[i][0] * GRIDS[i][1])
    theirs = of_lvlm(inputs, model.config)
    features = lvlm.model.get_image_features(theirs["pixel_values"], theirs["image_grid_thw"]).pooler_output[0]
    positions, _ = lvlm.model.get_rope_index(
        theirs["input_ids"], theirs["mm_token_type_ids"], image_grid_thw=theirs["image_grid_thw"]
    )
    start = int(theirs["mm_token_type_ids"][0].nonzero()[0])
    end = start + len(features)
    embeds = lvlm.get_input_embeddings()(inputs["input_ids"])[0]
    embeds = torch.cat([embeds[:start], features[retained], embeds[end:]])[None]
    kept = [*range(start), *(start + retained).tolist(), *range(end, positions.shape[-1])]
    hidden = lvlm.model.language_model(inputs_embeds=embeds, position_ids=positions[..., kept]).last_hidden_state
    torch.testing.assert_close(output.logits, lvlm.lm_head(hidden), rtol=1e-4, atol=1e-4)
    assert torch.equal(output.position_ids, positions[..., kept])


@torch.no_grad()
def test_signals_are_clips_mapped_onto_the_grid_of_tokens(qwen, wrapped):
    clip = qwen[2]
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    state = model.encode_image(
        **{name: inputs[name] for name in ("pixel_values", "image_grid_thw", "guide_pixel_values")}
    )
    tower = clip.vision_model
    states = tower(inputs["guide_pixel_values"], output_hidden_states=True).hidden_states[-2]
    patches = clip.visual_projection(tower.post_layernorm(states[:, 1:]))
    last = tower.encoder.layers[-1]
    entering, attention = last.layer_norm1(states), last.self_attn
    key, value = attention.k_proj(entering[:, 1:]), attention.v_proj(entering[:, 1:])
    shares = (key @ attention.q_proj(entering[:, 0])[..., None])[..., 0].div(32**0.5).softmax(-1)
    contribution = shares * value.norm(dim=-1)
    # The third image has CLIP's own grid of 4 x 4, the first two a finer and a coarser one
    torch.testing.assert_close(state.patch_embeds[2, :16], patches[2])
    torch.testing.assert_close(state.contribution[2, :16], contribution[2])
    assert state.is_token.sum(-1).tolist() == [15, 24, 16] and not state.patch_embeds[~state.is_token].any()
    for i, grid in enumerate(GRIDS):
        alone = map_onto_grids(patches[i : i + 1], [grid])
        torch.testing.assert_close(state.patch_embeds[i, : alone.shape[1]], alone[0])


def test_mapping_keeps_means_where_it_is_coarser_and_slopes_where_it_is_finer():
    slope = torch.arange(8.0).expand(8, 8)
    (coarse,) = map_onto_grids(slope.reshape(1, 64), [[2, 2]]).unflatten(1, (2, 2))
    torch.testing.assert_close(coarse.mean(), slope.mean())
    assert coarse[0, 0] < 3 < 4 < coarse[0, 1] and torch.equal(coarse[0], coarse[1])
    # A patch counts wherever it is: taking every fourth line would not see it
    spot = torch.zeros(1, 64)
    spot[0, 0] = 1
    assert map_onto_grids(spot, [[2, 2]])[0, 0] > 0
    (fine,) = map_onto_grids(slope.reshape(1, 64), [[8, 16]]).unflatten(1, (8, 16))
    torch.testing.assert_close(fine[0, 1:-1], torch.arange(14) / 2 + 0.25)
    half = map_onto_grids(slope.reshape(1, 64).bfloat16(), [[3, 5], [1, 1]][:1])
    assert half.dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
def test_batch_of_different_sizes_gives_what_single_calls_give(wrapped):
    model, processor = wrapped
    together = model(**processor(IMAGES, QUESTIONS))
    answers = generated(model, processor(IMAGES, QUESTIONS))[1]
    for i, question in enumerate(QUESTIONS):
        inputs = processor(IMAGES[i], question)
        alone = model(**inputs)
        assert torch.equal(together.retained_indices[i], alone.retained_indices[0])
        length = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[i, -length:], alone.logits[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(answers[i], generated(model, inputs)[1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
@pytest.mark.parametrize("method", ["litelvlm", "none"])
def test_generation_is_forward_with_a_cache_and_without(wrapped, method):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    sequences, logits = generated(model, inputs, pruning_method=method)
    for options in ({"use_cache": False}, {"cache_implementation": "static"}):
        others, other_logits = generated(model, inputs, pruning_method=method, **options)
        assert torch.equal(others, sequences), options
        torch.testing.assert_close(other_logits, logits, rtol=1e-4, atol=1e-4)
    # Each token by the prompt before it
    length = inputs["input_ids"].shape[1]
    for i in range(6):
        prompt = dict(inputs) | {"input_ids": sequences[:, : length + i]}
        prompt["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, i), value=1)
        with torch.no_grad():
            step = model(**prompt, pruning_method=method).logits[:, -1]
        torch.testing.assert_close(logits[:, i], step, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", ["litelvlm", "none"])
def test_a_cache_goes_on_behind_the_positions_of_its_image(wrapped, method):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    answer = torch.randint(3, 90, (3, 4), generator=torch.Generator().manual_seed(0))
    whole = dict(inputs) | {"input_ids": torch.cat([inputs["input_ids"], answer], dim=1)}
    whole["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
    expected = model(**whole, pruning_method=method).logits[:, -4:]
    first = model(**inputs, pruning_method=method, use_cache=True)
    cache = first[CACHE_NAME]
    # Its length alone would have given other positions
    assert int(first.position_ids.max()) + 1 != cache.get_seq_length()
    going_on = model(input_ids=answer, **{CACHE_NAME: cache}).logits
    torch.testing.assert_close(going_on, expected, rtol=1e-4, atol=1e-4)
    # `generate` counts positions before the model sees the cache
    with pytest.raises(ValueError, match=r"cannot be continued; pass the whole conversation .* instead\."):
        model.generate(input_ids=answer, **{CACHE_NAME: cache}, max_new_tokens=1)


def test_one_image_is_asked_several_questions_and_gives_several_answers(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES[1], QUESTIONS)
    assert len(inputs["image_grid_thw"]) == 1 and len(inputs["input_ids"]) == 3
    answers = generated(model, inputs)
    for i, question in enumerate(QUESTIONS):
        alone = generated(model, processor(IMAGES[1], question))[1]
        torch.testing.assert_close(answers[1][i], alone[0], rtol=1e-4, atol=1e-4)
    images = {name: inputs.pop(name) for name in IMAGE_INPUTS if name in inputs}
    state = model.encode_image(**images)
    for ours, expected in zip(generated(model, inputs, image_state=state), answers, strict=True):
        assert torch.equal(ours, expected)
    batch = processor(IMAGES, QUESTIONS)
    twice = processor([image for image in IMAGES for _ in range(2)], [text for text in QUESTIONS for _ in range(2)])
    sampled = []
    for prompts, number in ((batch, 2), (twice, 1)):
        torch.manual_seed(0)
        sampled.append(generated(model, prompts, do_sample=True, num_return_sequences=number))
    several = sampled[0][0]
    assert torch.equal(several, sampled[1][0]) and not torch.equal(several[0], several[1])
    torch.testing.assert_close(sampled[0][1], sampled[1][1], rtol=1e-4, atol=1e-4)
    beams = model.generate(**batch, max_new_tokens=4, num_beams=2, do_sample=False)
    assert len(beams) == 3
    assert len(processor.decode_answers(several, batch)) == 6


@torch.no_grad()
def test_inputs_embeds_stand_in_for_ids(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    expected, answers = model(**inputs).logits, generated(model, inputs)[1]
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    torch.testing.assert_close(model(**inputs, inputs_embeds=embeds).logits, expected)
    torch.testing.assert_close(generated(model, inputs | {"inputs_embeds": embeds})[1], answers)


@torch.no_grad()
def test_conversations_and_answers_to_learn_from(wrapped):
    model, processor = wrapped
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {"role": "user", "content": [{"type": "image", "image": IMAGES[0]}, {"type": "text", "text": "the dog"}]},
    ]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert model.generate(**inputs, **GENERATE).shape[1] == inputs["input_ids"].shape[1] + 6
    inputs = processor(IMAGES, QUESTIONS)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model.train()
    with torch.enable_grad():
        loss = model(**inputs, labels=labels).loss
        loss.backward()
    assert loss.isfinite() and model.model.backbone.visual.merger.mlp[0].weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
def test_converted_and_saved_folders_are_what_from_backbone_wraps(qwen, wrapped, tmp_path):
    report = convert(qwen[3] / "lvlm", tmp_path / "converted", clip=qwen[3] / "clip")
    assert report["vision_tower"] == "from the checkpoint; the guide has one of its own" and report["processor"]
    assert [entry["key"] for entry in report["dropped"]] == ["logit_scale"]
    expected = wrapped[0](**wrapped[1](IMAGES, QUESTIONS)).logits
    loaded, processor = from_backbone(qwen[0], qwen[3] / "clip", processor=qwen[3] / "lvlm", num_retained_tokens=6)
    assert torch.equal(loaded(**processor(IMAGES, QUESTIONS)).logits, expected)
    assert loaded.model.backbone is qwen[0].model
    for part in wrapped:
        part.save_pretrained(tmp_path / "saved")
    for name in ("converted", "saved"):
        model = LiteLVLMForSegmentation.from_pretrained(tmp_path / name, num_retained_tokens=6)
        processor = LiteLVLMProcessor.from_pretrained(tmp_path / name)
        processor.check_fits(model.config)
        assert torch.equal(model(**processor(IMAGES, QUESTIONS)).logits, expected)
    processor.image_processor.merge_size = 1
    with pytest.raises(ValueError, match=r"how many merge is \(4, 1\) in the processor, but \(4, 2\)"):
        processor.check_fits(model.config)
    processor.guide_image_options = None
    with pytest.raises(ValueError, match=r"size of the guide's images is None in the processor, but 32"):
        processor.check_fits(model.config)


def test_a_saved_folder_loads_without_the_package(wrapped, tmp_path):
    check_loads_without_the_package(tmp_path, *wrapped, IMAGES, QUESTIONS, GENERATE, auto_model="AutoModel")


def test_service_answers_about_images_of_any_size_and_again_from_their_states(wrapped):
    pytest.importorskip("cachetools")
    from litelvlm.serving.worker import Question, Worker

    model, processor = wrapped
    worker, options = Worker(model, processor), {"max_new_tokens": 6}
    for image in IMAGES * 2:
        file = io.BytesIO()
        image.save(file, "PNG")
        content = [{"type": "image"}, {"type": "text", "text": "the dog"}]
        question = Question(file.getvalue(), messages=({"role": "user", "content": content},), options=options)
        (answered,) = worker.answer([worker.prepare(question)])
        asked = [{"role": "user", "content": [{"type": "image", "image": image}, content[1]]}]
        inputs = processor.apply_chat_template(asked, tokenize=True, return_dict=True)
        expected = processor.decode_answers(model.generate(**inputs, **options, do_sample=False), inputs)
        assert [result["answer"] for result in answered["results"]] == expected
        assert answered["num_prompt_tokens"] == inputs["input_ids"].shape[1]


def test_what_needs_one_map_of_patches_or_another_engine_is_refused(wrapped, tmp_path):
    model, processor = wrapped
    with pytest.raises(ValueError, match="give the engine the checkpoint that was wrapped"):
        export_llava(model, processor, tmp_path / "exported")
    with pytest.raises(ValueError, match="tokens have rows and columns, but another engine"):
        encode(model, processor, IMAGES[0], QUESTIONS[0])
    with pytest.raises(ValueError, match="no square map to show"):
        retained_patches(model.config, "litelvlm", {}, None)
    with pytest.raises(ValueError, match=r"no Qwen-VL\), has a vision side"):
        VisionSide(model)
    with pytest.raises(ValueError, match="different numbers of tokens; allowed are numbers, and all"):
        parse_budget("192/576", model.config)
    for part in wrapped:
        part.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="name its CLIP instead"):
        load_clip(str(tmp_path / "saved"))
    check_forward(model, processor)


def test_the_demo_refuses_images_of_any_number_of_tokens(wrapped):
    app = pytest.importorskip("litelvlm.hub_cards.app")
    with pytest.raises(ValueError, match="a Qwen-VL's images have their own"):
        app.build(*wrapped)


def test_hosts_are_those_that_the_configuration_knows():
    assert sorted(HOSTS) == sorted(name for name in TEXTLESS_TOWERS if not name.endswith("_vision"))


@torch.no_grad()
def test_methods_that_look_into_a_tower_or_between_layers_are_refused(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    counts = torch.tensor([height * width for height, width in GRIDS])
    for method in ("trim", "cdpruner", "divprune", "random", "uniform"):
        retained = model(**inputs, pruning_method=method).retained_indices
        assert retained.shape == (3, 6) and (retained < counts[:, None]).all(), method
    for method in ("visionzip", "fastv"):
        with pytest.raises(ValueError, match=f"'{method}', which .* choose another"):
            model(**inputs, pruning_method=method)


@torch.no_grad()
def test_what_does_not_fit_is_refused(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES[0], QUESTIONS[0])
    for name, message in (
        ("guide_pixel_values", "a CLIP that sees each image by itself"),
        ("image_grid_thw", "pass the processor's output whole"),
        ("guide_input_ids", "pruning needs the texts"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**{key: value for key, value in inputs.items() if key != name})
    with pytest.raises(ValueError, match="products add up to the number of patches"):
        model.encode_image(inputs["pixel_values"][1:], image_grid_thw=inputs["image_grid_thw"])
    # Two images in one prompt
    two = processor(IMAGES[:2], QUESTIONS[:2])
    images = {name: two[name] for name in IMAGE_INPUTS if name in two}
    with pytest.raises(ValueError, match="2 images for 1 prompts"):
        model(**inputs | images)
    with pytest.raises(ValueError, match="takes one image per conversation here"):
        model.encode_image(**images, batch_num_images=torch.tensor([2]))
    with pytest.raises(ValueError, match="holds 2 images, but with an external guide one is allowed"):
        processor([IMAGES[:2]], QUESTIONS[0])
    with pytest.raises(ValueError, match=r"`image_grid_thw` .* \[24\] visual tokens, but .* hold \[15\] image pl"):
        model(**inputs | {name: processor(IMAGES[1], "x")[name] for name in images})
    # Videos
    with pytest.raises(ValueError, match="videos are not supported"):
        model(**inputs, pixel_values_videos=inputs["pixel_values"])
    with pytest.raises(ValueError, match="several frames; videos are not supported"):
        model.encode_image(inputs["pixel_values"], image_grid_thw=torch.tensor([[2, 10, 3]]))
    with pytest.raises(ValueError, match="part of type 'video'"):
        messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "x"}]}]
        processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    # Masks
    with pytest.raises(ValueError, match="makes no masks"):
        LiteLVLMForSegmentation(model.config).segment(**inputs)
    model.config.position_mode = "consecutive"
    with pytest.raises(ValueError, match=r"'consecutive'; a 'qwen2_5_vl' places .* only 'original'"):
        model(**inputs)


@torch.no_grad()
@pytest.mark.parametrize("qwen", HOSTS, indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grid: None, r"`image_grid_thw` is None"),
        (lambda grid: grid - torch.tensor([0, 2, 0]), r"`image_grid_thw` .*visual tokens, but .* placeholders"),
        (lambda grid: grid.repeat(2, 1), r"`image_grid_thw` has 2 images for 1 prompts"),
        (lambda grid: grid[0], r"`image_grid_thw` has shape \(3,\); allowed is \(images, 3\)"),
        (lambda grid: grid.tolist(), r"`image_grid_thw` is a list; allowed is a tensor"),
        (lambda grid: grid.float(), r"`image_grid_thw` is a .*float32.*; allowed is a tensor of whole numbers"),
    ],
)
def test_grids_that_do_not_fit_are_named_and_not_a_number_of_images(wrapped, change, message):
    """With positions, which are made of the grid, and without."""
    model, processor = wrapped
    inputs = processor(IMAGES[0], QUESTIONS[0])
    positions = model.model.grid_position_ids(
        inputs["input_ids"] == model.config.image_token_id, inputs["image_grid_thw"], inputs["attention_mask"]
    )
    wrong = dict(inputs) | {"image_grid_thw": change(inputs["image_grid_thw"])}
    for run in (
        lambda: model(**wrong),
        lambda: model.generate(**wrong, max_new_tokens=1),
        lambda: model(**wrong, position_ids=positions),
    ):
        with pytest.raises(ValueError, match="image_grid_thw") as raised:
            run()
        assert "batch_num_images" not in str(raised.value)
    with pytest.raises(ValueError, match=message):
        model(**wrong)


def test_budget_beyond_an_image_is_refused_in_every_call_and_says_what_to_do(qwen, wrapped):
    """Only an image tells how many tokens it has, so that loading cannot."""
    model, _ = from_backbone(qwen[3] / "lvlm", qwen[3] / "clip", num_retained_tokens=5000)
    inputs = wrapped[1](IMAGES, QUESTIONS)
    for run in (lambda: model(**inputs), lambda: model.generate(**inputs, max_new_tokens=1)):
        with pytest.raises(
            ValueError, match=r"5000 tokens to retain: they have \[15, 24, 16\]; set a smaller .*'none'"
        ):
            run()
    with torch.no_grad():
        assert model(**inputs, pruning_method="none").num_retained_tokens is None
        assert model(**inputs, num_retained_tokens=15).num_retained_tokens.tolist() == [15] * 3
    with pytest.raises(ValueError, match=r"`num_retained_tokens` is 40000; allowed are integers from 1 to 32768"):
        from_backbone(qwen[3] / "lvlm", qwen[3] / "clip", num_retained_tokens=40000)


@torch.no_grad()
def test_state_of_other_images_is_refused_without_asking_for_their_number(wrapped):
    model, processor = wrapped
    two, inputs = processor(IMAGES[:2], QUESTIONS[:2]), processor(IMAGES[0], QUESTIONS[0])
    state = model.encode_image(**{name: two[name] for name in IMAGE_INPUTS if name in two})
    prompts = {name: value for name, value in inputs.items() if name not in IMAGE_INPUTS}
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    for options in ({}, {"position_ids": positions}):
        with pytest.raises(ValueError, match="2 images for 1 prompts") as raised:
            model(**prompts, image_state=state, **options)
        assert "batch_num_images" not in str(raised.value)


def test_guides_and_configurations_that_do_not_fit_are_refused(qwen, wrapped, config_values, tmp_path):
    config = wrapped[0].config
    assert default_guide(config.vision_config) == "openai/clip-vit-large-patch14-336"
    with pytest.raises(ValueError, match=r"is a 'qwen2_5_vl' model, but .* allowed is any 'clip' model"):
        LiteLVLMForSegmentation.from_backbone(qwen[0], qwen[3] / "lvlm")
    with pytest.raises(ValueError, match=r"'qwen2_5_vl'; beside a tower .* stands a CLIP"):
        LiteLVLMProcessor.from_backbone(qwen[3] / "lvlm", qwen[3] / "lvlm")
    with pytest.raises(ValueError, match="to be the guide is a 'qwen2_5_vl'; allowed are CLIP"):
        convert(qwen[3] / "lvlm", tmp_path / "converted", clip=qwen[3] / "lvlm")
    fitting = {
        "backbone_config": config.backbone_config,
        "guide_config": config.guide_config,
        "position_mode": "original",
    }
    assert LiteLVLMConfig(**fitting).has_varying_lengths
    for changes, message in (
        ({"sam_config": config_values["sam_config"], "seg_token_id": 3}, "answers in text only"),
        ({"projector_type": "linear"}, "has its own, 'mlp'"),
        ({"guide_config": config.guide_config.text_config}, "is a CLIPTextConfig, .* allowed is a whole CLIPConfig"),
        ({"position_mode": "consecutive"}, "only 'original' is allowed"),
        ({"backbone_config": config_values["backbone_config"]}, "is a CLIPConfig, .* tower is 'clip_vision_model'"),
    ):
        with pytest.raises(ValueError, match=message):
            LiteLVLMConfig(**fitting | changes)


def test_guide_that_is_not_named_is_the_one_that_the_paper_measured(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[convert.__module__], "EXTERNAL_CLIP", str(qwen[3] / "clip"))
    convert(qwen[3] / "lvlm", tmp_path / "converted")
    assert LiteLVLMConfig.from_pretrained(tmp_path / "converted").has_external_guide
