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
"""Several images in a conversation: each is pruned by itself, to a budget of its own, against Transformers' models."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaProcessor

from litelvlm import LiteLVLMForSegmentation, from_backbone
from litelvlm.modeling.outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState
from litelvlm.modeling.pruning_litelvlm import retained_patches
from litelvlm.modeling.versions_litelvlm import CACHE_NAME
from litelvlm.serving.engines import encode

from ..hosts import (
    WITH_SEVERAL_IMAGES,
    WRAPPED,
    backbone_values,
    wrapped_lvlm,
    write_interleave,
    write_llava_next,
    write_onevision,
)
from ..siglip import CHAT_TEMPLATE, NUM_PATCHES, gemma_tokenizer
from ..without_package import check_loads_without_the_package

SIZES = [(20, 60), (64, 60), (30, 20)]  # height, width
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)) for i, size in enumerate(SIZES)
]
# Two images in the first conversation, and one in the second
GROUPS, QUESTIONS = [IMAGES[:2], IMAGES[2:]], ["the dog", "two cats, please"]
GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
BUDGET = 5


@pytest.fixture(params=WITH_SEVERAL_IMAGES)
def host(request, processor, config_values, tmp_path):
    """An LVLM of Transformers with its processor, and the same wrapped."""
    names = ("lvlm", "siglip")
    if request.param == "llava":
        lvlm, _ = write_interleave(tmp_path, processor, gemma_tokenizer())
        own = LlavaProcessor.from_pretrained(tmp_path / "lvlm")
    elif request.param == "llava_next":
        processor.tokenizer.bos_token, processor.chat_template = None, CHAT_TEMPLATE
        lvlm, own = write_llava_next(tmp_path, processor, config_values)
        names = ("llava_next", "clip")
    else:
        lvlm, own = write_onevision(tmp_path, processor)
    model, lite_processor = from_backbone(*(tmp_path / name for name in names), num_retained_tokens=BUDGET)
    return SimpleNamespace(lvlm=lvlm, own=own, model=model, processor=lite_processor, name=request.param)


def of_lvlm(host, inputs):
    """The inputs that Transformers' model takes."""
    names = ["input_ids", "attention_mask", "pixel_values"]
    names += ["image_sizes"] if host.model.config.has_crops else []
    names += ["batch_num_images"] if host.name == "llava_onevision" else []
    return {name: inputs[name] for name in names}


def split_images(inputs):
    """The inputs without those of images, and those."""
    return [{name: inputs[name] for name in inputs if (name in IMAGE_INPUTS) == chosen} for chosen in (False, True)]


def test_inputs_are_those_of_its_own_processor(host):
    prompts = [
        host.own.apply_chat_template(
            [{"role": "user", "content": [*[{"type": "image"}] * len(group), {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for group, question in zip(GROUPS, QUESTIONS, strict=True)
    ]
    theirs = host.own(images=GROUPS, text=prompts, padding=True, return_tensors="pt")
    ours = host.processor(GROUPS, QUESTIONS)
    for name in of_lvlm(host, ours):
        assert torch.equal(ours[name], theirs[name]), name
    assert ours["batch_num_images"].tolist() == [2, 1]
    # In a conversation images may stand anywhere
    parts = [{"type": "image", "image": image} for image in IMAGES]
    chat = [
        {"role": "user", "content": [parts[0], {"type": "text", "text": "the dog"}, parts[1]]},
        {"role": "assistant", "content": "left"},
        {"role": "user", "content": [{"type": "text", "text": "and here?"}, parts[2]]},
    ]
    prompt = host.own.apply_chat_template(
        [m | {"content": [{"type": "text", "text": "left"}]} if m["content"] == "left" else m for m in chat],
        add_generation_prompt=True,
    )
    theirs = host.own(images=[IMAGES], text=[prompt], return_tensors="pt")
    ours = host.processor.apply_chat_template(chat, tokenize=True, return_dict=True)
    for name in of_lvlm(host, ours):
        assert torch.equal(ours[name], theirs[name]), name


@torch.no_grad()
@pytest.mark.parametrize("groups", [GROUPS[:1], GROUPS, [IMAGES[:1], IMAGES, IMAGES[1:]]], ids=["2", "2+1", "1+3+2"])
def test_without_pruning_logits_are_the_lvlms(host, groups):
    questions = [QUESTIONS[i % 2] for i in range(len(groups))]
    inputs = host.processor(groups, questions)
    expected = host.lvlm(**of_lvlm(host, inputs)).logits
    assert torch.equal(host.model(**inputs, pruning_method="none").logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", WRAPPED)
def test_without_pruning_logits_are_those_of_lvlms_with_clip(make_model, make_batch, config_values, kind):
    model, batch = make_model(backbone_config=backbone_values(config_values, kind)), make_batch()
    first, second, third = batch["input_ids"]
    ids = torch.stack([torch.cat([first, second]), torch.cat([torch.zeros_like(third), third])])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": batch["pixel_values"]}
    counts = torch.tensor([2, 1])
    got = model(**inputs, batch_num_images=counts, pruning_method="none").logits
    assert torch.equal(got, wrapped_lvlm(model)(**inputs).logits)
    guides = {name: batch[name][:2] for name in ("guide_input_ids", "guide_attention_mask")}
    output = model(**inputs, **guides, batch_num_images=counts)
    assert len(output.retained_indices) == 3
    # The conversation with one image drops the fewest
    assert output.logits.shape[1] == 60 - (NUM_PATCHES - model.config.num_retained_tokens)


@torch.no_grad()
def test_every_image_keeps_what_it_keeps_by_itself(host):
    inputs = host.processor(GROUPS, QUESTIONS)
    output = host.model(**inputs)
    assert output.retained_indices.shape == (3, BUDGET) and output.num_retained_tokens.tolist() == [BUDGET] * 3
    state = host.model.encode_image(**split_images(inputs)[1])
    prompts = host.processor(GROUPS, QUESTIONS)
    for i, asked in enumerate([0, 0, 1]):
        own = {name: value[i : i + 1] for name, value in state.items() if name != "batch_num_images"}
        if state.is_token is not None:  # without the padding that a longer image has brought
            own = {name: value[:, state.is_token[i]] for name, value in own.items()}
        own = LiteLVLMImageState(**own)
        number = own.image_features.shape[1]
        alone = host.model(
            input_ids=torch.full((1, number), host.model.config.image_token_id),
            image_state=own,
            **{name: prompts[name][asked : asked + 1] for name in ("guide_input_ids", "guide_attention_mask")},
        )
        assert torch.equal(alone.retained_indices[0], output.retained_indices[i])
        torch.testing.assert_close(alone.similarity[0], output.similarity[i, :, :number])


@torch.no_grad()
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_retained_tokens_of_each_image_stand_where_its_placeholders_began(host, position_mode):
    """The prompt assembled by hand from the LVLM's own features, in a walk through its tokens."""
    host.model.config.position_mode = position_mode
    inputs = host.processor(GROUPS[:1], QUESTIONS[:1])
    output = host.model(**inputs)
    images = {name: inputs[name] for name in of_lvlm(host, inputs) if name in IMAGE_INPUTS}
    features = host.lvlm.model.get_image_features(**images).pooler_output
    embeds, positions, rest = [], [], [list(range(len(image))) for image in features]
    starts = {}
    for i, token in enumerate(inputs["input_ids"][0]):
        if token != host.model.config.image_token_id:
            embeds.append(host.lvlm.get_input_embeddings()(token))
            positions.append(i)
            continue
        image = next(k for k, patches in enumerate(rest) if patches)
        starts.setdefault(image, i)
        number = rest[image].pop(0)
        if number < BUDGET:
            patch = int(output.retained_indices[image, number])
            embeds.append(features[image][patch])
            positions.append(starts[image] + patch)
    assert output.source_positions[0].tolist() == positions
    position_ids = torch.tensor([positions]) if position_mode == "original" else None
    mask = torch.ones(1, len(positions), dtype=torch.long)
    expected = host.lvlm(inputs_embeds=torch.stack(embeds)[None], attention_mask=mask, position_ids=position_ids)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_batch_of_different_numbers_gives_what_single_calls_give(host):
    together = host.model(**host.processor(GROUPS, QUESTIONS))
    first = 0
    for i, (group, question) in enumerate(zip(GROUPS, QUESTIONS, strict=True)):
        alone = host.model(**host.processor([group], [question]))
        retained = together.retained_indices[first : first + len(group)]
        assert torch.equal(retained, alone.retained_indices)
        length = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[i, -length:], alone.logits[0], rtol=1e-4, atol=1e-4)
        assert not together.attention_mask[i, :-length].any() and together.attention_mask[i, -length:].all()
        first += len(group)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_generation_is_forward_with_a_cache_and_without_and_from_a_state(host, position_mode):
    model, inputs = host.model, host.processor(GROUPS, QUESTIONS)
    model.config.position_mode = position_mode
    cached = model.generate(**inputs, **GENERATE)
    assert torch.equal(cached, model.generate(**inputs, **GENERATE, use_cache=False))
    with torch.no_grad():
        assert torch.equal(cached[:, inputs["input_ids"].shape[1]], model(**inputs).logits[:, -1].argmax(-1))
    prompts, images = split_images(inputs)
    state = model.encode_image(**images)
    assert torch.equal(cached, model.generate(**prompts, image_state=state, **GENERATE))
    # Beams repeat the prompts, and each its own images
    beams = {"num_beams": 3, "num_return_sequences": 2}
    from_pixels = model.generate(**inputs, **GENERATE, **beams)
    assert torch.equal(from_pixels, model.generate(**prompts, image_state=state, **GENERATE, **beams))


@torch.no_grad()
def test_images_are_encoded_once_for_several_questions(host):
    model, first = host.model, host.processor(GROUPS, QUESTIONS)
    state = model.encode_image(**split_images(first)[1])
    texts = ["the dog", "the bird", "two cats, please", "left"]
    inputs = host.processor([GROUPS[0], GROUPS[0], GROUPS[1], GROUPS[1]], texts)
    got = model(**split_images(inputs)[0], image_state=state)
    expected = model(**inputs)
    assert torch.equal(got.retained_indices, expected.retained_indices)
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="There are 2 conversations' images for 3 prompts"):
        model(**{name: value[:3] for name, value in split_images(inputs)[0].items()}, image_state=state)


@torch.no_grad()
def test_labels_stay_with_their_tokens(host):
    inputs = host.processor(GROUPS, QUESTIONS)
    is_text = (inputs["input_ids"] != host.model.config.image_token_id) & inputs["attention_mask"].bool()
    labels = inputs["input_ids"].masked_fill(~is_text, -100)
    output = host.model(**inputs, labels=labels)
    kept = labels.gather(1, output.source_positions).masked_fill(output.attention_mask == 0, -100)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), kept[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    assert (kept != -100).sum() == is_text.sum()


@pytest.mark.parametrize("host", ["llava"], indirect=True)
@pytest.mark.parametrize("groups", [[IMAGES[:1]], GROUPS[:1], GROUPS], ids=["1", "2", "2+1"])
def test_a_static_cache_holds_the_rows_that_pruning_leaves(host, groups):
    inputs = host.processor(groups, QUESTIONS[: len(groups)])
    options = GENERATE | {"cache_implementation": "static", "return_dict_in_generate": True}
    output = host.model.generate(**inputs, **options)
    with torch.no_grad():
        length = host.model(**inputs).logits.shape[1] + GENERATE["max_new_tokens"] - 1
    assert {layer.keys.shape[2] for layer in getattr(output, CACHE_NAME).layers} == {length}
    assert torch.equal(output.sequences, host.model.generate(**inputs, **GENERATE))


@pytest.mark.parametrize("host", ["llava_onevision"], indirect=True)
def test_saved_folder_loads_without_the_package(host, tmp_path):
    check_loads_without_the_package(tmp_path, host.model, host.processor, GROUPS, QUESTIONS, GENERATE)


def test_what_knows_of_one_image_is_refused(host):
    model, inputs = host.model, host.processor(GROUPS, QUESTIONS)
    with pytest.raises(ValueError, match=r"'fastv', which prunes inside the language model.* choose another"):
        model(**inputs, pruning_method="fastv")
    with pytest.raises(ValueError, match=r"hold \[2, 1\] images; allowed is one each"):
        encode(model, host.processor, GROUPS, QUESTIONS)


@pytest.mark.parametrize("host", ["llava_next", "llava_onevision"], indirect=True)
def test_budget_beyond_an_image_in_crops_is_refused_in_every_call(host):
    """It may be that of a larger image, so that the configuration takes it."""
    host.model.config.num_retained_tokens = host.model.config.num_patches
    inputs = host.processor([IMAGES[2]], QUESTIONS[:1])
    for run in (lambda: host.model(**inputs), lambda: host.model.generate(**inputs, max_new_tokens=1)):
        with pytest.raises(
            ValueError, match=r"fewer patches than the \d+ tokens to retain: .* set a smaller .*'none'"
        ):
            run()


def test_numbers_of_images_may_be_a_list(host):
    model, inputs = host.model, host.processor(GROUPS, QUESTIONS)
    listed = dict(inputs) | {"batch_num_images": inputs["batch_num_images"].tolist()}
    with torch.no_grad():
        assert torch.equal(model(**listed).logits, model(**inputs).logits)
    for options in ({}, {"num_beams": 2}, {"cache_implementation": "static"}):
        expected = model.generate(**inputs, **GENERATE, **options)
        assert torch.equal(model.generate(**listed, **GENERATE, **options), expected), options
    state = model.encode_image(**split_images(listed)[1])
    assert torch.equal(state.batch_num_images, inputs["batch_num_images"])
    for wrong in ([2.0, 1.0], ["2", "1"], inputs["batch_num_images"].float(), 3):
        for run in (model, model.generate):
            with pytest.raises(ValueError, match=r"`batch_num_images` (is|has)"):
                run(**dict(inputs) | {"batch_num_images": wrong})


def test_numbers_that_do_not_add_up_are_named(host):
    model, inputs = host.model, host.processor(GROUPS, QUESTIONS)
    for wrong, message in (
        ([1, 2], r"image placeholders|holds 2 crops of each image, but .* they are \[3, 1, 1\]"),
        ([2, 2], r"image placeholders|is \[2, 2\], but `pixel_values` holds 3 images"),
        ([3], r"`batch_num_images` has shape \(1,\)"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            model(**inputs | {"batch_num_images": torch.tensor(wrong)})
    without = {name: value for name, value in inputs.items() if name != "batch_num_images"}
    with pytest.raises((ValueError, RuntimeError), match=r"image placeholders|3 images for 2 prompts|holds 2 crops"):
        model(**without)
    prompts, images = split_images(inputs)
    with pytest.raises(ValueError, match="`batch_num_images` and `image_state` are both given"):
        model(**prompts, image_state=model.encode_image(**images), batch_num_images=torch.tensor([2, 1]))
    host.processor.chat_template = "{% for m in messages %}<image>{{ m['content'][-1]['text'] }}{% endfor %}"
    with pytest.raises(ValueError, match="template places 1 images of a conversation with 2"):
        host.processor(GROUPS, QUESTIONS)


@torch.no_grad()
def test_model_with_sam_answers_about_several_images_in_text_only(make_text_model, processor):
    model: LiteLVLMForSegmentation = make_text_model(num_retained_tokens=BUDGET)
    with pytest.raises(ValueError, match=r"holds 2 images, but a mask is .*`processor.with_masks = False`"):
        processor(GROUPS, QUESTIONS)
    with_masks = processor(IMAGES[:2], QUESTIONS)
    processor.with_masks = False
    inputs = processor(GROUPS, QUESTIONS)
    tokens = model.generate(**inputs, **GENERATE)
    output = model(**inputs)
    assert torch.equal(tokens[:, inputs["input_ids"].shape[1]], output.logits[:, -1].argmax(-1))
    shown = torch.stack(retained_patches(model.config, "litelvlm", inputs, output)).any(dim=0)
    assert shown.flatten().nonzero()[:, 0].tolist() == sorted(output.retained_indices[0].tolist())
    refused = r"`batch_num_images` is \[2, 1\], but a mask is .* use `generate`"
    pixels = {"sam_pixel_values": with_masks["sam_pixel_values"]}
    state = model.encode_image(inputs["pixel_values"], batch_num_images=inputs["batch_num_images"])
    prompts, images = split_images(inputs)
    for run in (
        lambda: model.segment(**inputs, **pixels),
        lambda: model(**inputs, **pixels),
        lambda: model(**prompts, **pixels, image_state=state),
        lambda: model.encode_image(**images, **pixels),
        lambda: model.segment(**dict(inputs) | {"batch_num_images": [2, 1]}, **pixels),
    ):
        with pytest.raises(ValueError, match=refused):
            run()
    # One image each, said so, is as it is unsaid
    expected = model.segment(**with_masks, **GENERATE)
    for ones in (torch.tensor([1, 1]), [1, 1]):
        got = model.segment(**with_masks, batch_num_images=ones, **GENERATE)
        assert torch.equal(got.sequences, expected.sequences) and len(got.pred_masks) == 2


@torch.no_grad()
def test_methods_that_look_into_the_vision_tower_take_each_image_by_itself(make_text_model, processor):
    model, processor.with_masks = make_text_model(num_retained_tokens=BUDGET), False
    together = model(**processor(GROUPS, QUESTIONS), pruning_method="visionzip").retained_indices
    alone = model(**processor(IMAGES, ["the dog"] * 3), pruning_method="visionzip").retained_indices
    assert torch.equal(together, alone)
