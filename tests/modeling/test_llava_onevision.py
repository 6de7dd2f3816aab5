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
"""LLaVA-OneVision: SigLIP's tower on crops, whose patches are shrunk where they are many, against Transformers."""

import numpy as np
import pytest
import torch
from PIL import Image

from litelvlm import LiteLVLMForSegmentation, LiteLVLMProcessor, from_backbone
from litelvlm.conversion import convert
from litelvlm.conversion.llava_hf import export_llava

from ..hosts import check_batch_is_single_calls, write_onevision
from ..siglip import NUM_PATCHES

SIZES = [
    (20, 60),
    (30, 20),
    (64, 60),
]  # height, width: two crops, one, and four that are shrunk
QUESTIONS = ["the dog", "two cats, please", "the bird"]
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)) for i, size in enumerate(SIZES)
]
GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
OF_LVLM = ("input_ids", "attention_mask", "pixel_values", "image_sizes")


@pytest.fixture
def onevision(processor, tmp_path):
    """A tiny LLaVA-OneVision, saved with its processor, and the folder with both and its SigLIP."""
    return *write_onevision(tmp_path, processor), tmp_path


@pytest.fixture
def wrapped(onevision):
    return from_backbone(onevision[2] / "lvlm", onevision[2] / "siglip", num_retained_tokens=10)


def test_inputs_are_those_of_its_own_processor(onevision, wrapped):
    _, own, _ = onevision
    model, processor = wrapped
    is_image = []
    for image, question in zip(IMAGES, QUESTIONS, strict=True):
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = own.apply_chat_template(messages, add_generation_prompt=True)
        theirs = own(images=image, text=prompt, return_tensors="pt")
        ours = processor(image, question)
        for name in OF_LVLM:
            assert torch.equal(ours[name], theirs[name]), name
        is_image.append(int((ours["input_ids"] == model.config.image_token_id).sum()))
    # Lines of patches and the token that ends each: of 4 x 8 and 4 x 4 less the padding, and of 8 x 8 shrunk to 5 x 5
    assert [number - NUM_PATCHES for number in is_image] == [2 * 9, 4 * 3, 5 * 6]
    # Just not shrunk is an image of 1.1 x 1.1 times the limit of 32
    assert model.config.num_patches == NUM_PATCHES + 38


def test_export_is_refused_as_its_processor_for_videos_is_not_kept(wrapped, tmp_path):
    with pytest.raises(ValueError, match="give the engine the checkpoint that was wrapped"):
        export_llava(*wrapped, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@torch.no_grad()
def test_without_pruning_logits_are_onevisions(onevision, wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    expected = onevision[0](**{name: inputs[name] for name in OF_LVLM}).logits
    assert torch.equal(model(**inputs, pruning_method="none").logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("i", range(3))
def test_retained_tokens_reach_the_language_model_in_order(onevision, wrapped, i):
    """One image: the prompt assembled by hand from LLaVA-OneVision's own packed features."""
    lvlm = onevision[0]
    model, processor = wrapped
    inputs = processor(IMAGES[i], QUESTIONS[i])
    output = model(**inputs)
    packed = lvlm.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
    retained = output.retained_indices[0]
    assert len(set(retained.tolist())) == 10
    embeds = lvlm.get_input_embeddings()(inputs["input_ids"])[0]
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    start = int(is_image.nonzero()[0])
    embeds = torch.cat([embeds[:start], packed[retained], embeds[start + int(is_image.sum()) :]])
    torch.testing.assert_close(output.logits, lvlm(inputs_embeds=embeds[None]).logits, rtol=1e-4, atol=1e-4)
    # No end of a line is ever retained
    state = model.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    assert state.is_patch[0, retained].all() and not state.is_patch.all()


@torch.no_grad()
def test_signals_of_shrunk_patches_are_shrunk_with_them(wrapped):
    """Each crop of an image by itself, and the grid of their patches resized as the features are."""
    model, processor = wrapped
    inputs = processor(IMAGES[2], QUESTIONS[2])
    state = model.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    guide, tower = model.model.guide, model.model.backbone.vision_tower
    crops = inputs["pixel_values"][0]
    embeds, query, key, value = guide.read_patches(tower(crops, output_hidden_states=True).hidden_states[-1])
    shares = (key @ query[..., None])[..., 0].div(key.shape[-1] ** 0.5).softmax(-1)
    contribution = shares * value.norm(dim=-1)
    for found, whole in ((state.contribution[0][:, None], contribution[..., None]), (state.patch_embeds[0], embeds)):
        grid = whole[1:].view(2, 2, 4, 4, -1).permute(4, 0, 2, 1, 3).reshape(-1, 8, 8)
        small = torch.nn.functional.interpolate(grid[None], (5, 5), mode="bilinear")[0].flatten(1).T
        is_line = torch.arange(len(found) - NUM_PATCHES) % 6 == 5
        torch.testing.assert_close(found[:NUM_PATCHES], whole[0])
        torch.testing.assert_close(found[NUM_PATCHES:][~is_line], small)
        assert not found[NUM_PATCHES:][is_line].any()
    assert torch.equal(state.is_patch[0, NUM_PATCHES:], ~is_line) and state.is_token.all()


def test_batch_of_different_sizes_gives_what_single_calls_give(wrapped):
    check_batch_is_single_calls(*wrapped, IMAGES, QUESTIONS)


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_generation_is_forward_with_a_cache_and_without(wrapped, position_mode):
    model, processor = wrapped
    model.config.position_mode = position_mode
    inputs = processor(IMAGES, QUESTIONS)
    cached = model.generate(**inputs, **GENERATE)
    assert torch.equal(cached, model.generate(**inputs, **GENERATE, use_cache=False))
    with torch.no_grad():
        assert torch.equal(cached[:, inputs["input_ids"].shape[1]], model(**inputs).logits[:, -1].argmax(-1))


@torch.no_grad()
def test_converted_and_saved_folders_are_what_from_backbone_wraps(onevision, wrapped, tmp_path):
    folder = onevision[2]
    report = convert(folder / "lvlm", folder / "converted", clip=folder / "siglip")
    assert report["processor"] and report["kind"] == "llava"
    expected = wrapped[0](**wrapped[1](IMAGES, QUESTIONS)).logits
    for part in wrapped:
        part.save_pretrained(tmp_path / "saved")
    for name in ("converted", "saved"):
        model = LiteLVLMForSegmentation.from_pretrained(tmp_path / name, num_retained_tokens=10)
        processor = LiteLVLMProcessor.from_pretrained(tmp_path / name)
        processor.check_fits(model.config)
        assert torch.equal(model(**processor(IMAGES, QUESTIONS)).logits, expected)
    processor.vision_aspect_ratio = "anyres_max_9"
    with pytest.raises(ValueError, match=r"limit of an image in crops is anyres_max_9 in .*, but anyres_max_2"):
        processor.check_fits(model.config)


@torch.no_grad()
def test_methods_of_one_image_are_refused_and_others_retain_patches(wrapped):
    model, processor = wrapped
    inputs = processor(IMAGES, QUESTIONS)
    is_patch = model.encode_image(inputs["pixel_values"], image_sizes=inputs["image_sizes"]).is_patch
    for method in ("trim", "cdpruner", "divprune", "random", "uniform"):
        retained = model(**inputs, pruning_method=method).retained_indices
        assert retained.shape == (3, 10)
        assert is_patch.gather(1, retained.clamp(min=0))[retained >= 0].all(), method
    for method in ("visionzip", "fastv"):
        with pytest.raises(ValueError, match=f"'{method}', which .* choose another"):
            model(**inputs, pruning_method=method)
