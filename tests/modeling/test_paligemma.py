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
"""PaliGemma and PaliGemma 2: a prompt that is read in both directions, against Transformers' own class."""

import inspect
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration

from litelvlm import LiteLVLMForSegmentation, LiteLVLMProcessor, from_backbone
from litelvlm.commands.main import main
from litelvlm.conversion import convert
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.modeling.versions_litelvlm import CACHE_NAME

from ..hosts import check_batch_is_single_calls
from ..paligemma import SLIDING_WINDOW, write_paligemma
from ..siglip import NUM_PATCHES
from ..without_package import check_loads_without_the_package

GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
QUESTIONS = ["answer en what is the dog doing?", "segment two cats"]
ANSWERS = ["a dog sits", "<loc0100><loc0200><loc0300><loc0400><seg001> cat"]
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8)) for i in range(len(QUESTIONS))
]
OF_LVLM = ("input_ids", "attention_mask", "pixel_values", "token_type_ids")


@pytest.fixture(params=["gemma", "gemma2"])
def paligemma(request, tmp_path):
    """A tiny PaliGemma, its processor, and the folder with both and its SigLIP."""
    return *write_paligemma(request.param, tmp_path), tmp_path


@pytest.fixture
def wrapped(paligemma):
    folder = paligemma[2]
    return from_backbone(folder / "lvlm", folder / "siglip", num_retained_tokens=6)


def of_lvlm(inputs):
    return {name: inputs[name] for name in OF_LVLM}


def logits_of(lvlm, **inputs):
    """Transformers' logits; before 5.24 it forgot the bound that PaliGemma 2 was trained with."""
    logits = lvlm(**inputs).logits
    softcap = getattr(lvlm.config.text_config, "final_logit_softcapping", None)
    if softcap is not None and "softcap" not in inspect.getsource(PaliGemmaForConditionalGeneration.forward):
        logits = torch.tanh(logits / softcap) * softcap
    return logits


@pytest.mark.parametrize("answers", [None, ANSWERS])
def test_inputs_are_those_of_its_own_processor(paligemma, wrapped, answers):
    _, own, _ = paligemma
    _, processor = wrapped
    texts = [f"<image>{question}" for question in QUESTIONS]
    theirs = own(images=[[image] for image in IMAGES], text=texts, suffix=answers, padding=True, return_tensors="pt")
    ours = processor(IMAGES, QUESTIONS, answers)
    for name in (*OF_LVLM, *(["labels"] if answers else [])):
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("answers", [None, ANSWERS])
@torch.no_grad()
def test_without_pruning_logits_are_paligemmas(paligemma, wrapped, answers):
    """With padding, and with a prompt that is longer than the sliding window."""
    lvlm, _, _ = paligemma
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS, answers)
    assert inputs["input_ids"].shape[1] > SLIDING_WINDOW and not inputs["attention_mask"].all()
    expected = logits_of(lvlm, **of_lvlm(inputs))
    output = model(**inputs, pruning_method="none")
    assert torch.equal(output.logits, expected)
    if answers:
        loss = lvlm.loss_function(expected, inputs["labels"], lvlm.config.text_config.vocab_size)
        assert torch.equal(output.loss, loss)
    else:
        assert torch.equal(
            model.generate(**inputs, pruning_method="none", **GENERATE), lvlm.generate(**of_lvlm(inputs), **GENERATE)
        )
    # Without the marks of an answer Transformers reads in one direction, and so here
    del inputs["token_type_ids"]
    one_way = logits_of(lvlm, **{name: inputs[name] for name in OF_LVLM[:3]})
    assert torch.equal(model(**inputs, pruning_method="none").logits, one_way) and not torch.equal(one_way, expected)


@torch.no_grad()
def test_each_of_several_images_in_a_prompt_is_pruned_by_itself(paligemma, wrapped):
    lvlm, own, _ = paligemma
    model, processor = wrapped
    groups = [IMAGES, IMAGES[:1]]
    texts = ["<image>" * len(group) + question for group, question in zip(groups, QUESTIONS, strict=True)]
    theirs = own(images=groups, text=texts, padding=True, return_tensors="pt")
    inputs = processor(groups, QUESTIONS)
    for name in OF_LVLM:
        assert torch.equal(inputs[name], theirs[name]), name
    assert torch.equal(model(**inputs, pruning_method="none").logits, logits_of(lvlm, **of_lvlm(inputs)))
    tokens = model.generate(**inputs, **GENERATE)
    for number, (group, question) in enumerate(zip(groups, QUESTIONS, strict=True)):
        alone = processor([group], [question])
        output = model(**alone)
        assert output.retained_indices.shape == (len(group), 6)
        assert torch.equal(tokens[number, inputs["input_ids"].shape[1]], output.logits[0, -1].argmax())


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
@pytest.mark.parametrize("with_mask", [True, False])
@torch.no_grad()
def test_pruned_prompt_is_the_one_without_the_other_patches(paligemma, wrapped, position_mode, with_mask):
    """Its rows, types, labels and positions, put together by hand and given to Transformers' class."""
    lvlm, _, _ = paligemma
    model, processor = wrapped
    model.config.position_mode = position_mode
    inputs = processor(IMAGES[1], QUESTIONS[1], ANSWERS[1])
    if not with_mask:
        del inputs["attention_mask"]
    output = model(**inputs, use_cache=False)
    kept = output.retained_indices[0]
    rows = torch.cat([kept, torch.arange(NUM_PATCHES, inputs["input_ids"].shape[1])])  # an image stands first
    features = lvlm.model.get_image_features(inputs["pixel_values"]).pooler_output[0]
    embeds = torch.cat([features[kept], lvlm.get_input_embeddings()(inputs["input_ids"][0, NUM_PATCHES:])])
    positions = rows + 1 if position_mode == "original" else torch.arange(len(rows)) + 1
    expected = logits_of(
        lvlm,
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(rows), dtype=torch.long),
        token_type_ids=inputs["token_type_ids"][:, rows],
        position_ids=positions[None],
        use_cache=False,
    )
    assert torch.equal(output.logits, expected)
    assert torch.equal(model(**inputs).logits, expected)  # and as it goes into a cache
    loss = lvlm.loss_function(expected, inputs["labels"][:, rows], lvlm.config.text_config.vocab_size)
    assert torch.equal(output.loss, loss)


def test_batch_with_padding_gives_what_single_calls_give(wrapped):
    check_batch_is_single_calls(*wrapped, IMAGES, QUESTIONS)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
@pytest.mark.parametrize("method", ["litelvlm", "none"])
def test_generation_is_forward_with_a_cache_and_without(paligemma, wrapped, position_mode, method):
    model, processor = wrapped
    model.config.position_mode = position_mode
    inputs = processor(IMAGES, QUESTIONS)
    options = GENERATE | {"pruning_method": method}
    cached = model.generate(**inputs, **options)
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))
    assert torch.equal(cached, model.generate(**inputs, **options, cache_implementation="static"))
    # The answer as it was given in training: behind the prefix, not a part of it
    length = inputs["input_ids"].shape[1]
    answered = dict(inputs) | {"input_ids": cached}
    for name, value in (("attention_mask", 1), ("token_type_ids", 1)):
        answered[name] = torch.nn.functional.pad(inputs[name], (0, cached.shape[1] - length), value=value)
    if method == "none":
        answered["position_ids"] = (answered["attention_mask"].cumsum(-1) - 1).clamp(min=0) + 1
    with torch.no_grad():
        logits = model(**answered, pruning_method=method).logits[:, -7:-1]
    assert torch.equal(logits.argmax(-1), cached[:, length:])


@pytest.mark.parametrize("method", ["litelvlm", "none"])
@pytest.mark.parametrize("with_mask", [True, False])
@torch.no_grad()
def test_call_after_a_prompt_goes_on_from_its_last_position(wrapped, method, with_mask):
    model, processor = wrapped
    inputs = processor(IMAGES[1], QUESTIONS[1], ANSWERS[1])
    del inputs["labels"]
    if not with_mask:
        del inputs["attention_mask"]
    asked = int(inputs["token_type_ids"].argmax(-1)) + 1  # a token of the answer is cached too
    by_token = ("input_ids", "attention_mask", "token_type_ids")
    prompt = {name: value[:, :asked] if name in by_token else value for name, value in inputs.items()}
    first = model(**prompt, use_cache=True, pruning_method=method)
    rest = model(input_ids=inputs["input_ids"][:, asked:], **{CACHE_NAME: first[CACHE_NAME]})
    whole = model(**inputs, pruning_method=method).logits
    torch.testing.assert_close(rest.logits, whole[:, -rest.logits.shape[1] :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("paligemma", ["gemma2"], indirect=True)
@torch.no_grad()
def test_forward_compiles_into_one_graph(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    compiled = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    expected = model(**inputs)
    assert torch.equal(compiled.retained_indices, expected.retained_indices)
    torch.testing.assert_close(compiled.logits, expected.logits)


def test_methods_inside_the_language_model_are_refused(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    for method in ("fastv", "pyramiddrop", "sparsevlm"):
        with pytest.raises(ValueError, match=f"'{method}', which .* 'paligemma' reads its prompt in both"):
            model(**inputs, pruning_method=method)
    with torch.no_grad():
        for method in ("trim", "cdpruner", "divprune", "evtp", "random", "uniform"):
            assert torch.isfinite(model(**inputs, pruning_method=method).logits).all(), method


@pytest.mark.parametrize("paligemma", ["gemma2"], indirect=True)
def test_flash_attention_is_refused_as_it_reads_in_one_direction(wrapped):
    model, processor = wrapped
    model.model.backbone.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"'flash_attention_2', which knows no mask.* 'sdpa' or 'eager'"):
        model(**processor(IMAGES[0], QUESTIONS[0]))


def said(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("paligemma", ["gemma"], indirect=True)
@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "roles user, assistant, user, but"),
        ([("user", "a"), ("user", "b")], "2 questions, but"),
        ([("assistant", "a")], "roles assistant, but|no message of the user"),
        ([("system", "short"), ("user", "a")], "a message of the system, but .* write what it says into the question"),
    ],
)
def test_conversations_are_refused_for_what_paligemma_does_not_read(wrapped, messages, reason):
    _, processor = wrapped
    conversation = [said(*message) for message in messages]
    for tokenize in (True, False):
        with pytest.raises(ValueError, match=reason) as raised:
            processor.apply_chat_template(conversation, tokenize=tokenize)
        assert "take turns" not in str(raised.value) and "chat_template" not in str(raised.value)
    # A template of one's own decides by itself
    own = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    if len(messages) > 1:
        assert processor.apply_chat_template(conversation, chat_template=own).startswith(messages[0][1])


@pytest.mark.parametrize("paligemma", ["gemma"], indirect=True)
def test_only_one_question_and_its_whole_answer_are_taken(wrapped):
    _, processor = wrapped
    for answers in (None, [["a dog"]], [["a dog", "there"]]):
        with pytest.raises(
            ValueError, match=r"2 questions, but PaliGemma reads one .* list of texts with the image alone"
        ):
            processor(IMAGES[0], [["what?", "where?"]], answers)
    messages = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(ValueError, match="`continue_final_message` is set, but PaliGemma"):
        processor.apply_chat_template(messages, tokenize=True, continue_final_message=True)


@pytest.mark.parametrize("paligemma", ["gemma"], indirect=True)
def test_conversion_says_each_reason_once_and_whose_prompts_are_written(paligemma, capsys):
    folder = paligemma[2]
    arguments = [str(folder / "lvlm"), str(folder / "converted"), "--clip", str(folder / "siglip")]
    assert main(["convert", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = [line for line in lines if line.startswith("left out:")]
    # The tower's tensors, which the checkpoint has itself, and what scales SigLIP's loss
    assert len(left_out) == 2 and "in place of the CLIP's" in "".join(left_out)
    (prompts,) = (line for line in lines if line.startswith("prompts:"))
    assert "of its own" not in prompts and "one question and its answer" in prompts
    report = json.loads((folder / "converted" / "conversion_report.json").read_text())
    assert report["conversation"] == "paligemma"
    taken = {entry["key"]: entry["instead"] for entry in report["dropped"] if "instead" in entry}
    assert taken["vision_model.embeddings.patch_embedding.bias"].endswith("embeddings.patch_embedding.bias")
    # What would be reported, and not heeded
    arguments[1] = str(folder / "again")
    for option, value in (("conversation", "llava_v1"), ("seg-token-id", "3")):
        assert main(["convert", *arguments, f"--{option}", value]) == 2
        name = option.replace("-", "_")
        assert f"`{name}` is {value!r}, but a 'paligemma' has prompts".replace("'3'", "3") in capsys.readouterr().err


@torch.no_grad()
def test_converted_folder_is_what_from_backbone_wraps(paligemma, wrapped):
    folder = paligemma[2]
    report = convert(folder / "lvlm", folder / "converted", clip=folder / "siglip")
    assert report["processor"] and report["kind"] == "llava"
    model = LiteLVLMForSegmentation.from_pretrained(folder / "converted", num_retained_tokens=6)
    processor = LiteLVLMProcessor.from_pretrained(folder / "converted")
    processor.check_fits(model.config)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    inputs, theirs = processor(IMAGES, QUESTIONS), wrapped[1](IMAGES, QUESTIONS)
    assert inputs.keys() == theirs.keys() and all(torch.equal(inputs[name], theirs[name]) for name in inputs)
    assert torch.equal(model(**inputs).logits, wrapped[0](**inputs).logits)
    processor.with_token_types = False
    with pytest.raises(ValueError, match="mark of answers by `token_type_ids` is False in the processor, but True"):
        processor.check_fits(model.config)


@pytest.mark.parametrize("paligemma", ["gemma"], indirect=True)
def test_larger_tower_takes_the_siglip_of_smaller_images(paligemma, capsys):
    """As PaliGemma's of 448 pixels, which was trained on from SigLIP's of 224."""
    folder = paligemma[2]
    write_paligemma("gemma", folder / "large", image_size=64)
    model, processor = from_backbone(folder / "large" / "lvlm", folder / "siglip", num_retained_tokens=6)
    with torch.no_grad():
        expected = model(**processor(IMAGES, QUESTIONS))
    arguments = [str(folder / "large" / "lvlm"), str(folder / "converted"), "--clip", str(folder / "siglip")]
    assert main(["convert", *arguments]) == 0
    converted = LiteLVLMForSegmentation.from_pretrained(folder / "converted", num_retained_tokens=6)
    with torch.no_grad():
        output = converted(**processor(IMAGES, QUESTIONS))
    assert torch.equal(output.logits, expected.logits) and output.similarity.shape[-1] == 64
    asking = ["--images", "1", "--num-retained-tokens", "5", "--output", str(folder / "run"), "--device", "cpu"]
    asking += ["--parent", str(folder / "siglip")]
    assert main(["diagnose", "--model", str(folder / "converted"), *asking]) == 0
    assert "tower_cosine" in json.loads((folder / "run" / "diagnosis.json").read_text())["figures"]
    with pytest.raises(ValueError, match="image_size 64, but that of the backbone has 32"):
        from_backbone(folder / "lvlm", folder / "large" / "siglip")


@pytest.mark.parametrize("paligemma", ["gemma"], indirect=True)
def test_export_to_engines_is_refused_as_they_read_in_one_direction(wrapped, tmp_path):
    with pytest.raises(ValueError, match=r"reads its prompt in both directions.* give the engine the checkpoint"):
        export_llava(*wrapped, tmp_path / "exported")


@pytest.mark.parametrize("paligemma", ["gemma2"], indirect=True)
def test_saved_folder_loads_without_the_package(wrapped, tmp_path):
    check_loads_without_the_package(tmp_path, *wrapped, IMAGES, QUESTIONS, GENERATE)
