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
"""LVLMs with SigLIP's vision tower, as llava-interleave and LLaVA-OneVision, against Transformers' own classes."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipProcessor,
)

from litelvlm import LiteLVLMConfig, LiteLVLMForSegmentation, LiteLVLMProcessor, from_backbone
from litelvlm.commands.main import main
from litelvlm.conversion import convert
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.conversion.weights import CheckpointReader
from litelvlm.hub_cards.publish import push
from litelvlm.modeling.guide_texts_litelvlm import encode_guide_texts

from ..hosts import check_batch_is_single_calls, write_interleave
from ..siglip import (
    GUIDE_LENGTH,
    NUM_PATCHES,
    gemma_tokenizer,
    randomise,
    siglip_tokenizer,
    siglip_vision,
    write_siglip,
)
from ..without_package import check_loads_without_the_package

GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
QUESTIONS = ["the DOG, on the left", "two cats"]
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8)) for i in range(len(QUESTIONS))
]


@pytest.fixture(params=["siglip", "siglip2"])
def llava(request, processor, tmp_path):
    """A tiny llava-interleave, saved with its processor, and its SigLIP."""
    guide = siglip_tokenizer(tmp_path) if request.param == "siglip" else gemma_tokenizer()
    return *write_interleave(tmp_path, processor, guide), tmp_path


@pytest.fixture
def wrapped(llava):
    folder = llava[2]
    return from_backbone(folder / "lvlm", folder / "siglip", num_retained_tokens=6)


@torch.no_grad()
def test_without_pruning_logits_are_llavas(llava, wrapped):
    lvlm, _, folder = llava
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    names = ("input_ids", "attention_mask", "pixel_values")
    expected = lvlm(**{name: inputs[name] for name in names}).logits
    assert torch.equal(model(**inputs, pruning_method="none").logits, expected)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[1]}]}]
    own = LlavaProcessor.from_pretrained(folder / "lvlm")
    prompt = own.apply_chat_template(messages, add_generation_prompt=True)
    theirs = own(images=IMAGES[1], text=prompt, return_tensors="pt")
    ours = processor(IMAGES[1], QUESTIONS[1])
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name


@torch.no_grad()
def test_exported_folder_has_a_placeholder_for_each_patch_and_none_for_a_class_token(wrapped, tmp_path):
    model, processor = wrapped
    export_llava(model, processor, tmp_path / "exported")
    engine = LlavaForConditionalGeneration.from_pretrained(tmp_path / "exported")
    own = LlavaProcessor.from_pretrained(tmp_path / "exported")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[1]}]}]
    prompt = own.apply_chat_template(messages, add_generation_prompt=True)
    theirs = own(images=IMAGES[1], text=prompt, return_tensors="pt")
    ours = processor(IMAGES[1], QUESTIONS[1])
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    torch.testing.assert_close(engine(**theirs).logits, model(**ours, pruning_method="none").logits)


@torch.no_grad()
def test_texts_are_siglips_with_their_padding(llava, wrapped):
    _, siglip, folder = llava
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    tokenizer = AutoTokenizer.from_pretrained(folder / "siglip")
    theirs = SiglipProcessor(SiglipImageProcessor(), tokenizer)(
        text=[question.lower() for question in QUESTIONS],
        padding="max_length",
        max_length=GUIDE_LENGTH,
        truncation=True,
        padding_side="right",
        return_tensors="pt",
    )["input_ids"]
    assert torch.equal(inputs["guide_input_ids"][:, 0], theirs)
    assert (theirs[:, -1] == tokenizer.pad_token_id).all()  # which is the position that SigLIP reads
    embeds = model.model.guide(inputs["guide_input_ids"], inputs["guide_attention_mask"])
    torch.testing.assert_close(embeds[:, 0], siglip.get_text_features(input_ids=theirs).pooler_output)
    with pytest.raises(ValueError, match=f"padded to {GUIDE_LENGTH}"):
        model.model.guide(inputs["guide_input_ids"][..., :-1], inputs["guide_attention_mask"][..., :-1])


def test_long_texts_keep_their_end_and_typed_tokens_stay_text(llava, wrapped):
    guide = wrapped[1].guide_tokenizer
    for text in ("the dog " * 40, f"the {guide.eos_token} dog"):
        ids = encode_guide_texts([[[text]]], guide, GUIDE_LENGTH)["guide_input_ids"][0, 0].tolist()
        mask = encode_guide_texts([[[text]]], guide, GUIDE_LENGTH)["guide_attention_mask"][0, 0]
        assert len(ids) == GUIDE_LENGTH
        read = ids[: int(mask.sum())]
        assert read.index(guide.eos_token_id) == len(read) - 1


def select(similarity, contribution, number):
    """The paper's rule for one text, written out: half by lowest similarity, the rest by contribution."""
    low = sorted(range(len(similarity)), key=lambda i: (similarity[i], i))[: number // 2]
    rest = sorted(set(range(len(similarity))) - set(low), key=lambda i: (-contribution[i], i))
    return rest[: number - len(low)] + sorted(low)


@torch.no_grad()
def test_selection_is_that_of_a_plain_reference(llava, wrapped):
    """Each patch alone through SigLIP's own norm and head; the probe in the place of the class token, in numpy."""
    lvlm, siglip, _ = llava
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    output = model(**inputs)
    vision = siglip.vision_model
    patches = lvlm.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-1]
    alone = torch.stack([vision.head(vision.post_layernorm(image[:, None])) for image in patches]).double().numpy()
    texts = siglip.get_text_features(input_ids=inputs["guide_input_ids"][:, 0]).pooler_output.double().numpy()
    attention = vision.head.attention
    width = attention.embed_dim
    weight, bias = (value.double().numpy() for value in (attention.in_proj_weight, attention.in_proj_bias))
    normed = vision.post_layernorm(patches).double().numpy()
    query = vision.head.probe[0, 0].double().numpy() @ weight[:width].T + bias[:width]
    for i, image in enumerate(normed):
        key = image @ weight[width : 2 * width].T + bias[width : 2 * width]
        value = image @ weight[2 * width :].T + bias[2 * width :]
        scores = key @ query / width**0.5
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        contribution = np.linalg.norm(shares[:, None] * value, axis=1)
        similarity = alone[i] @ texts[i]
        np.testing.assert_allclose(output.similarity[i, 0].numpy(), similarity, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.contribution[i].numpy(), contribution, rtol=1e-4, atol=1e-6)
        assert output.retained_indices[i].tolist() == select(similarity, contribution, 6)


@torch.no_grad()
def test_pruned_prompt_is_the_one_without_the_other_patches(llava, wrapped):
    lvlm, _, _ = llava
    model, processor = wrapped
    inputs = processor(IMAGES[0], QUESTIONS[0])
    output = model(**inputs)
    features = lvlm.model.get_image_features(inputs["pixel_values"]).pooler_output[0]
    ids = inputs["input_ids"][0]
    is_image = ids == model.config.image_token_id
    assert int(is_image.sum()) == NUM_PATCHES
    start = int(is_image.nonzero()[0])
    embeds = lvlm.get_input_embeddings()(ids)
    embeds = torch.cat([embeds[:start], features[output.retained_indices[0]], embeds[start + NUM_PATCHES :]])
    torch.testing.assert_close(output.logits, lvlm(inputs_embeds=embeds[None]).logits)


def test_batch_with_padding_gives_what_single_calls_give(wrapped):
    check_batch_is_single_calls(*wrapped, IMAGES, QUESTIONS)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_generation_is_forward_with_a_cache_and_without(wrapped, position_mode):
    model, processor = wrapped
    model.config.position_mode = position_mode
    inputs = processor(IMAGES, QUESTIONS)
    cached = model.generate(**inputs, **GENERATE)
    assert torch.equal(cached, model.generate(**inputs, **GENERATE, use_cache=False))
    with torch.no_grad():
        step = model(**inputs).logits[:, -1].argmax(-1)
    assert torch.equal(cached[:, inputs["input_ids"].shape[1]], step)
    # An image that is encoded once, for any number of questions
    state = model.encode_image(inputs["pixel_values"])
    inputs.pop("pixel_values")
    assert torch.equal(cached, model.generate(**inputs, image_state=state, **GENERATE))


@torch.no_grad()
def test_several_texts_and_sentences_are_read(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES[0], [QUESTIONS], answers=[["a dog"]])
    assert model(**inputs).similarity.shape == (1, 2, NUM_PATCHES)
    processor.guide_form = "templates"
    inputs = processor(IMAGES[0], QUESTIONS[0])
    assert inputs["guide_input_ids"].shape[2:] == (4, GUIDE_LENGTH)
    assert model(**inputs).similarity.shape == (1, 1, NUM_PATCHES)


@torch.no_grad()
def test_methods_that_read_a_class_token_are_refused_and_others_work(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    for method in ("visionzip", "vispruner", "prumerge", "prumerge-adaptive", "hiprune", "surgery"):
        with pytest.raises(ValueError, match=f"'{method}', which reads the attention of CLIP's .* choose another"):
            model(**inputs, pruning_method=method)
    for method in ("trim", "cdpruner", "divprune", "evtp", "random", "uniform", "sparsevlm", "pyramiddrop", "fastv"):
        assert torch.isfinite(model(**inputs, pruning_method=method).logits).all(), method


@torch.no_grad()
def test_converted_folder_is_what_from_backbone_wraps(llava, wrapped):
    _, _, folder = llava
    report = convert(folder / "lvlm", folder / "converted", clip=folder / "siglip")
    assert report["processor"] and report["kind"] == "llava"
    assert "largest difference from the CLIP checkpoint's: 0.0" in report["vision_tower"]
    named = {entry["source"] for entry in report["tensors"]} | {entry["key"] for entry in report["dropped"]}
    assert set(CheckpointReader(folder / "lvlm").meta) | set(CheckpointReader(folder / "siglip").meta) == named
    model = LiteLVLMForSegmentation.from_pretrained(folder / "converted", num_retained_tokens=6)
    processor = LiteLVLMProcessor.from_pretrained(folder / "converted")
    processor.check_fits(model.config)
    assert processor.guide_length == GUIDE_LENGTH
    inputs = processor(IMAGES, QUESTIONS)
    theirs = wrapped[1](IMAGES, QUESTIONS)
    assert inputs.keys() == theirs.keys() and all(torch.equal(inputs[name], theirs[name]) for name in inputs)
    assert torch.equal(model(**inputs).logits, wrapped[0](**inputs).logits)
    assert json.loads((folder / "converted" / "config.json").read_text())["num_retained_tokens"] == NUM_PATCHES // 3
    processor.guide_length = None
    with pytest.raises(ValueError, match=f"guide's texts is None in the processor, but {GUIDE_LENGTH}"):
        processor.check_fits(model.config)


@pytest.mark.parametrize("llava", ["siglip2"], indirect=True)
@torch.no_grad()
def test_tied_words_a_head_and_the_names_of_older_files_are_read(llava):
    """As on the Hub: towers with a head that no LVLM looks at, and small language models without one of their own."""
    lvlm, _, folder = llava
    tower = siglip_vision(vision_use_head=True)
    values = lvlm.config.to_dict() | {"tie_word_embeddings": True, "vision_config": tower}
    values["text_config"] = values["text_config"] | {"tie_word_embeddings": True}
    tied = randomise(LlavaForConditionalGeneration(LlavaConfig.from_dict(values)))
    tied.save_pretrained(folder / "lvlm")
    weights = load_file(folder / "lvlm" / "model.safetensors")
    assert not any("lm_head" in name for name in weights)
    older = {re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name): name for name in weights}
    assert "vision_tower.vision_model.head.probe" in older
    save_file(
        {name: weights[own] for name, own in older.items()}, folder / "lvlm" / "model.safetensors", {"format": "pt"}
    )
    report = convert(folder / "lvlm", folder / "converted", clip=folder / "siglip")
    left_out = {entry["reason"] for entry in report["dropped"] if "vision_tower" in entry["key"]}
    assert left_out == {"not used by the language model; the guide's is SigLIP's"}
    model = LiteLVLMForSegmentation.from_pretrained(folder / "converted")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    inputs = LiteLVLMProcessor.from_pretrained(folder / "converted")(IMAGES, QUESTIONS)
    wrapped, _ = from_backbone(folder / "lvlm", folder / "siglip", num_retained_tokens=5)
    assert torch.equal(model(**inputs).logits, wrapped(**inputs).logits)
    names = ("input_ids", "attention_mask", "pixel_values")
    unpruned = model(**inputs, pruning_method="none").logits
    assert torch.equal(unpruned, tied(**{name: inputs[name] for name in names}).logits)


@torch.no_grad()
def test_forward_compiles_into_one_graph(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    compiled = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    expected = model(**inputs)
    assert torch.equal(compiled.retained_indices, expected.retained_indices)
    torch.testing.assert_close(compiled.logits, expected.logits)


@pytest.mark.parametrize("llava", ["siglip2"], indirect=True)
def test_saved_folder_loads_without_the_package(wrapped, tmp_path):
    check_loads_without_the_package(tmp_path, *wrapped, IMAGES, QUESTIONS, GENERATE)


def test_layers_on_cpu_and_disk_give_the_same_answers(wrapped, tmp_path):
    """accelerate's offload fetches a weight only for the forward pass of its own module."""
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    expected = model.generate(**inputs, **GENERATE)
    model.save_pretrained(tmp_path / "saved")
    device_map = {"model.backbone.vision_tower": "disk", "model.backbone.multi_modal_projector": "cpu"}
    device_map |= {"model.backbone.language_model": "disk", "model.guide": "disk", "lm_head": "cpu"}
    offloaded = type(model).from_pretrained(
        tmp_path / "saved", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert {p.device.type for p in offloaded.model.guide.parameters()} == {"meta"}
    assert torch.equal(offloaded.generate(**inputs, **GENERATE), expected)


def test_what_is_published_loads_with_the_guides_words(llava, tmp_path):
    folder = llava[2] / "converted"
    convert(llava[2] / "lvlm", folder, clip=llava[2] / "siglip")
    card = {"license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    (folder / "README.md").write_text("\n".join(["---", *(f"{k}: {v}" for k, v in card.items()), "---", ""]))
    for file in push(folder, "org/name", dry_run=True)["files"]:
        target = tmp_path / "published" / file["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file["name"], target)
    assert main(["verify", str(folder)]) == 0
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "published")
    expected = LiteLVLMProcessor.from_pretrained(folder)(IMAGES, QUESTIONS)["guide_input_ids"]
    assert torch.equal(processor(IMAGES, QUESTIONS)["guide_input_ids"], expected)


def test_guide_that_does_not_belong_is_refused(llava, tmp_path):
    folder = llava[2]
    with pytest.raises(ValueError, match="SigLIP and SigLIP 2 have the same sizes; name the one"):
        from_backbone(folder / "lvlm")
    write_siglip(tmp_path / "wide", gemma_tokenizer(), hidden_size=48)
    with pytest.raises(ValueError, match="hidden_size 48, but that of the backbone has 32"):
        from_backbone(folder / "lvlm", tmp_path / "wide")
    with pytest.raises(ValueError, match=r"`guide_config.vision_config.hidden_size` is 48 but .* width is 32"):
        convert(folder / "lvlm", tmp_path / "converted", clip=tmp_path / "wide")
    config = json.loads((folder / "siglip" / "config.json").read_text())
    shutil.copytree(folder / "siglip", tmp_path / "naflex")
    (tmp_path / "naflex" / "config.json").write_text(json.dumps(config | {"model_type": "siglip2"}))
    with pytest.raises(ValueError, match=r"is a 'siglip2' model, but the vision tower .* allowed is the 'siglip'"):
        from_backbone(folder / "lvlm", tmp_path / "naflex")


def test_tower_and_guide_of_two_kinds_are_refused(config_values):
    values = config_values["backbone_config"] | {"vision_config": siglip_vision()}
    with pytest.raises(ValueError, match="is 'default'; only 'full' is allowed of a 'siglip_vision_model'"):
        LiteLVLMConfig(**config_values | {"backbone_config": values})
    values["vision_feature_select_strategy"] = "full"
    with pytest.raises(ValueError, match="is a CLIPTextConfig, but the vision tower is 'siglip_vision_model'"):
        LiteLVLMConfig(**config_values | {"backbone_config": values})
    with pytest.raises(ValueError, match="is a SiglipConfig, but the vision tower is 'clip_vision_model'"):
        LiteLVLMConfig(**config_values | {"guide_config": {"model_type": "siglip"}})


def test_commands_convert_and_diagnose_it(llava):
    folder = llava[2]
    arguments = ["convert", str(folder / "lvlm"), str(folder / "converted"), "--clip", str(folder / "siglip")]
    assert main(arguments) == 0
    assert (folder / "converted" / "guide_siglip_litelvlm.py").is_file()
    config = LiteLVLMConfig.from_pretrained(folder / "converted")
    assert isinstance(config.guide_config, SiglipConfig) and not config.vision_config.vision_use_head
    asking = ["--images", "1", "--num-retained-tokens", "5", "--output", str(folder / "run"), "--device", "cpu"]
    assert main(["diagnose", "--model", str(folder / "converted"), "--parent", str(folder / "siglip"), *asking]) == 0
    report = json.loads((folder / "run" / "diagnosis.json").read_text())
    assert 0.9 < report["figures"]["tower_cosine"][0] < 1  # which `take_tower` has moved a little
