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
import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer, LlavaConfig, LlavaForConditionalGeneration

from litelvlm import LiteLVLMForSegmentation
from litelvlm.conversion import convert
from litelvlm.conversion.open_clip import save_as_clip

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quick_gelu"])
def pair(request, tmp_path_factory):
    """A tiny random OpenCLIP model, and the folder of the same in Transformers' form."""
    folder = tmp_path_factory.mktemp("open_clip")
    name = f"tiny-{request.param}"
    (folder / f"{name}.json").write_text(json.dumps(TINY | {"quick_gelu": request.param}))
    open_clip.add_model_config(folder / f"{name}.json")
    model = open_clip.create_model(name)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(model.state_dict(), folder / "weights.pt")
    save_as_clip(f"open_clip:{name}/{folder / 'weights.pt'}", folder / "clip")
    return model.eval(), folder / "clip"


@torch.no_grad()
def test_patch_and_text_similarities_are_open_clips(pair):
    model, folder = pair
    clip = CLIPModel.from_pretrained(folder)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = ["the dog on the left", "Two cats, at 3 o'clock!"]

    features = []
    handle = model.visual.transformer.resblocks[-2].register_forward_hook(lambda *hooked: features.append(hooked[2]))
    image_embeds = model.encode_image(pixels)
    handle.remove()
    patches = model.visual.ln_post(features[0][:, 1:]) @ model.visual.proj
    expected = patches @ model.encode_text(open_clip.tokenize(texts)).T

    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    vision = clip.vision_model(pixels, output_hidden_states=True)
    ours = clip.visual_projection(clip.vision_model.post_layernorm(vision.hidden_states[-2][:, 1:]))
    text_embeds = clip.text_projection(clip.text_model(**tokens).pooler_output)
    torch.testing.assert_close(ours @ text_embeds.T, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(clip.visual_projection(vision.pooler_output), image_embeds, rtol=1e-4, atol=1e-4)


def test_tokens_and_pixels_are_open_clips(pair):
    model, folder = pair
    text = "A photo of the 2nd dog's bowl, isn't it?"
    expected = open_clip.tokenize([text])[0]
    ids = CLIPTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert ids == expected[: len(ids)].tolist()
    assert not expected[len(ids) :].any()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    settings = open_clip.get_model_preprocess_cfg(model)
    theirs = open_clip.image_transform(32, is_train=False, mean=settings["mean"], std=settings["std"])(picture)
    ours = CLIPImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"][0]
    # PIL and torchvision round an interpolated value apart: one step of 255
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.26


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16"])
def test_other_architectures_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is no plain CLIP"):
        save_as_clip(f"open_clip:{name}", tmp_path)


def test_unknown_architecture_is_named(tmp_path):
    with pytest.raises(ValueError, match="no architecture 'ViT-Z-1'"):
        save_as_clip("open_clip:ViT-Z-1/openai", tmp_path)


def test_llava_with_an_open_clip_tower_gets_its_guide_from_open_clip(tmp_path, config_values, pair):
    model, folder = pair
    clip = CLIPModel.from_pretrained(folder)
    backbone = LlavaConfig.from_dict(
        config_values["backbone_config"] | {"vision_config": clip.config.vision_config.to_dict()}
    )
    llava = LlavaForConditionalGeneration(backbone)
    llava.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    llava.save_pretrained(tmp_path / "llava")
    name = f"open_clip:tiny-{clip.config.vision_config.hidden_act == 'quick_gelu'}/{folder.parent / 'weights.pt'}"
    report = convert(tmp_path / "llava", tmp_path / "converted", clip=name)
    assert report["vision_tower"].endswith("largest difference from the CLIP checkpoint's: 0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "llava"]
    converted = LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted")
    guide = converted.model.guide.visual_projection.weight
    torch.testing.assert_close(guide, model.visual.proj.T, rtol=0, atol=0)
