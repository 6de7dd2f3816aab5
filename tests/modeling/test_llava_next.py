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
"""LLaVA-NeXT: images in several crops, unpadded, with a newline embedding at the end of each row."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor

from litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation, LiteLVLMProcessor
from litelvlm.conversion import convert
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.serving.engines import encode

from ..hosts import write_llava_next

SIZES = [(50, 90), (64, 40)]  # height, width: one crop above two, and two above two, unpadded
OPTIONS = {"max_new_tokens": 6}


@pytest.fixture
def llava_next(config_values, processor, tmp_path):
    """A tiny LLaVA-NeXT, saved with its processor, and the folder with it and its CLIP."""
    return *write_llava_next(tmp_path, processor, config_values), tmp_path


@pytest.fixture
def wrapped(llava_next):
    folder = llava_next[2]
    return LiteLVLMForConditionalGeneration.from_backbone(
        folder / "llava_next", guide=folder / "clip", num_retained_tokens=10
    )


@pytest.fixture
def lite_processor(llava_next, processor):
    return LiteLVLMProcessor(
        llava_next[1].image_processor,
        processor.tokenizer,
        processor.guide_tokenizer,
        num_image_tokens=16,
        with_masks=False,
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)) for size in SIZES]


@torch.no_grad()
def test_without_pruning_logits_are_llava_nexts(llava_next, wrapped, lite_processor, images):
    inputs = lite_processor(images, ["the dog", "two cats, please"])
    names = ("input_ids", "attention_mask", "pixel_values", "image_sizes")
    expected = llava_next[0](**{name: inputs[name] for name in names}).logits
    torch.testing.assert_close(wrapped(**inputs, pruning_method="none").logits, expected, rtol=0, atol=0)


def test_placeholders_are_as_many_as_llava_nexts_processor_writes(llava_next, lite_processor, images):
    inputs = lite_processor(images, ["the dog", "the dog"])
    image_token_id = lite_processor.tokenizer.convert_tokens_to_ids("<image>")
    own = llava_next[1](images=images, text=["<image>", "<image>"], padding=True, return_tensors="pt")
    counts = (inputs["input_ids"] == image_token_id).sum(-1)
    assert counts.tolist() == (own["input_ids"] == image_token_id).sum(-1).tolist()
    assert len(set(counts.tolist())) == 2
    torch.testing.assert_close(inputs["pixel_values"], own["pixel_values"])


@torch.no_grad()
def test_retained_patches_reach_the_language_model_in_order(wrapped, lite_processor, images):
    """One image: the prompt assembled by hand from LLaVA-NeXT's own packed features."""
    inputs = lite_processor(images[0], "the dog")
    output = wrapped(**inputs)
    model = wrapped.model.backbone
    packed = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
    retained = output.retained_indices[0]
    assert len(set(retained.tolist())) == 10
    embeds = model.get_input_embeddings()(inputs["input_ids"])[0]
    is_image = inputs["input_ids"][0] == wrapped.config.image_token_id
    start = int(is_image.nonzero()[0])
    embeds = torch.cat([embeds[:start], packed[retained], embeds[start + int(is_image.sum()) :]])
    expected = wrapped.lm_head(model.language_model(inputs_embeds=embeds[None]).last_hidden_state)
    torch.testing.assert_close(output.logits, expected)
    # No end of a row is ever retained
    state = wrapped.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    assert state.is_patch[0, retained].all() and not state.is_patch.all()


@torch.no_grad()
def test_batch_of_different_sizes_gives_what_single_calls_give(wrapped, lite_processor, images):
    together = wrapped(**lite_processor(images, ["the dog", "two cats, please"]))
    for i, text in enumerate(["the dog", "two cats, please"]):
        alone = wrapped(**lite_processor(images[i], text))
        torch.testing.assert_close(together.retained_indices[i], alone.retained_indices[0])
        length = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[i, -length:], alone.logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_generation_with_a_cache_is_generation_without(wrapped, lite_processor, images, position_mode):
    wrapped.config.position_mode = position_mode
    inputs = lite_processor(images, ["the dog", "two cats, please"])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    cached = wrapped.generate(**inputs, **options)
    torch.testing.assert_close(cached, wrapped.generate(**inputs, **options, use_cache=False))


@torch.no_grad()
def test_patch_that_may_not_be_retained_never_is(wrapped, lite_processor, images):
    inputs = lite_processor(images, ["the dog", "the dog"])
    state = wrapped.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    fewest = int(state.is_patch.sum(-1).min())
    for order in ("lowest", "highest"):
        wrapped.config.similarity_order = order
        output = wrapped(**inputs, num_retained_tokens=fewest)
        assert state.is_patch.gather(1, output.retained_indices).all()
    with pytest.raises((ValueError, RuntimeError), match=f"fewer patches than the {fewest + 1} tokens"):
        wrapped(**inputs, num_retained_tokens=fewest + 1)


def test_image_sizes_are_asked_for(wrapped, lite_processor, images):
    inputs = lite_processor(images[0], "the dog")
    inputs.pop("image_sizes")
    with pytest.raises(ValueError, match="with `image_sizes`"):
        wrapped(**inputs)


@torch.no_grad()
def test_converted_folder_is_what_from_backbone_wraps(llava_next, wrapped, images):
    folder = llava_next[2]
    report = convert(folder / "llava_next", folder / "converted", clip=folder / "clip")
    assert report["processor"]
    model = LiteLVLMForSegmentation.from_pretrained(folder / "converted", num_retained_tokens=10)
    inputs = LiteLVLMProcessor.from_pretrained(folder / "converted")(images, ["the dog", "the cat"])
    torch.testing.assert_close(model(**inputs).logits, wrapped(**inputs).logits, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("method", ["litelvlm", "none"])
def test_another_engine_answers_as_the_wrapped_model(wrapped, lite_processor, images, method, tmp_path):
    export_llava(wrapped, lite_processor, tmp_path / "exported")
    engine = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "exported")
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "exported"), LlavaNextProcessor)
    texts, options = ["the dog", "two cats, please"], {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    inputs = lite_processor(images, texts)
    expected = wrapped.generate(**inputs, **options, pruning_method=method)[:, inputs["input_ids"].shape[1] :]
    prompts = encode(wrapped, lite_processor, images, texts, pruning_method=method)
    if method == "none":  # images of different numbers of tokens
        assert len({len(tokens) for tokens in prompts.visual_tokens}) == 2
    answers = engine.generate(inputs_embeds=prompts.inputs_embeds, attention_mask=prompts.attention_mask, **options)
    assert torch.equal(answers, expected)


def test_methods_of_one_image_are_refused_and_others_retain_patches(wrapped, lite_processor, images):
    inputs = lite_processor(images, ["the dog", "two cats, please"])
    is_patch = wrapped.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"]).is_patch
    for method in ("trim", "cdpruner", "divprune", "random", "uniform"):
        retained = wrapped(**inputs, pruning_method=method).retained_indices
        assert retained.shape == (2, 10)
        assert is_patch.gather(1, retained.clamp(min=0))[retained >= 0].all()
    with pytest.raises(ValueError, match="looks into the vision tower"):
        wrapped(**inputs, pruning_method="visionzip")
    with pytest.raises(ValueError, match="prunes inside the language model"):
        wrapped(**inputs, pruning_method="fastv")


def test_service_answers_about_images_in_crops_and_again_from_their_states(wrapped, lite_processor, images):
    pytest.importorskip("cachetools")
    from litelvlm.serving.worker import Question, Worker

    worker = Worker(wrapped, lite_processor)
    for image in images * 2:
        file = io.BytesIO()
        image.save(file, "PNG")
        content = [{"type": "image"}, {"type": "text", "text": "the dog"}]
        question = Question(file.getvalue(), messages=({"role": "user", "content": content},), options=OPTIONS)
        (answered,) = worker.answer([worker.prepare(question)])
        asked = [{"role": "user", "content": [{"type": "image", "image": image}, content[1]]}]
        inputs = lite_processor.apply_chat_template(asked, tokenize=True, return_dict=True)
        expected = lite_processor.decode_answers(wrapped.generate(**inputs, **OPTIONS, do_sample=False), inputs)
        assert [result["answer"] for result in answered["results"]] == expected
        assert answered["num_prompt_tokens"] == inputs["input_ids"].shape[1]


def test_processor_that_cuts_images_does_not_fit_a_model_of_whole_ones(
    make_text_model, lite_processor, wrapped, processor
):
    lite_processor.check_fits(wrapped.config)
    with pytest.raises(ValueError, match="cutting of images into crops"):
        lite_processor.check_fits(make_text_model(sam_config=None, seg_token_id=None).config)
    processor.with_masks = False
    with pytest.raises(ValueError, match="cutting of images into crops"):
        processor.check_fits(wrapped.config)
