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
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from litelvlm import LiteLVLMForSegmentation
from litelvlm.configuration.configuration_litelvlm import OpenCLIPGuideConfig
from litelvlm.conversion import convert
from litelvlm.conversion.open_clip import save_open_clip
from litelvlm.modeling.guide_open_clip_litelvlm import LiteLVLMOpenCLIPGuide
from litelvlm.modeling.guide_texts_litelvlm import encode_guide_text

LISA = Path(__file__).parents[1] / "golden" / "lisa_tiny" / "checkpoint"
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
    save_open_clip(f"open_clip:{name}/{folder / 'weights.pt'}", folder / "clip")
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
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    settings = open_clip.get_model_preprocess_cfg(model)
    theirs = open_clip.image_transform(32, is_train=False, mean=settings["mean"], std=settings["std"])(image)
    ours = CLIPImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"][0]
    # PIL and torchvision round an interpolated value apart: one step of 255
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.26


def test_unknown_architecture_is_named(tmp_path):
    with pytest.raises(ValueError, match="no architecture 'ViT-Z-1'"):
        save_open_clip("open_clip:ViT-Z-1/openai", tmp_path)


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


TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
# Towers that Transformers' CLIP has no form for, the grid of their patches, and what they make of one patch
OTHERS = {
    "coca": (
        {
            "embed_dim": 24,
            "vision_cfg": TINY["vision_cfg"]
            | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": TEXT | {"context_length": 76, "attn_pooler_heads": 2},
            "custom_text": True,
        },
        4,
    ),
    "eva": (
        {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"}
            | {"timm_proj": None},
            "text_cfg": TEXT,
            "custom_text": True,
        },
        16,
    ),
    "siglip": (
        {
            "embed_dim": 64,
            "init_logit_bias": -10,
            "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": TEXT
            | {"context_length": 16, "vocab_size": 40, "hf_tokenizer_name": "words", "pool_type": "last"}
            | {"no_causal_mask": True, "proj_bias": True, "tokenizer_kwargs": {"clean": "canonicalize"}},
            "custom_text": True,
        },
        10,
    ),
}


def patch_alone(name, visual, patches):
    """The formula of each tower's pooling, where its attention has only one position to look at."""
    if name == "coca":
        attention, width = visual.attn_pool.attn, visual.attn_pool.attn.embed_dim
        keys = visual.attn_pool.ln_k(patches)
        value_weight = (
            attention.in_proj_weight[2 * width :] if attention.v_proj_weight is None else attention.v_proj_weight
        )
        values = keys @ value_weight.T + attention.in_proj_bias[2 * width :]
        return visual.ln_post(attention.out_proj(values)) @ visual.proj
    trunk = visual.trunk
    normed = trunk.norm(patches)
    if name == "eva":
        return trunk.head(trunk.fc_norm(normed))
    pool = trunk.attn_pool
    values = pool.proj(pool.kv(normed).chunk(2, dim=-1)[1])
    return trunk.fc_norm(values + pool.mlp(pool.norm(values)))


@pytest.fixture(scope="module", params=list(OTHERS))
def other(request, tmp_path_factory):
    """Its name, a random model in open_clip's own folder form, and the side of its grid of patches."""
    settings, side = OTHERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    if "hf_tokenizer_name" in settings["text_cfg"]:
        letters = {
            letter: i for i, letter in enumerate(["<pad>", "</s>", "<unk>", " ", *"abcdefghijklmnopqrstuvwxyz0123"])
        }
        backend = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return request.param, model.eval(), folder, side


@torch.no_grad()
def test_other_architectures_guide_with_a_tower_of_their_own(tmp_path, config_values, other):
    name, model, folder, side = other
    vision = config_values["backbone_config"]["vision_config"] | {"image_size": 8 * side, "patch_size": 8}
    values = config_values["backbone_config"] | {"vision_config": vision, "image_seq_length": side**2}
    LlavaForConditionalGeneration(LlavaConfig.from_dict(values)).save_pretrained(tmp_path / "llava")
    report = convert(tmp_path / "llava", tmp_path / "converted", clip=f"local-dir:{folder}")
    assert {entry["reason"] for entry in report["dropped"]} <= {"makes captions", "computed from the configuration"}
    converted = LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted")

    save_open_clip(f"local-dir:{folder}", tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["The dog, on  the_left!", "two cats"]
    ids = [encode_guide_text(text, words) for text in texts]
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    assert [text[: len(own)].tolist() for text, own in zip(theirs, ids, strict=True)] == ids
    length = max(map(len, ids))
    padded = torch.tensor([own + [7] * (length - len(own)) for own in ids])[None]
    mask = torch.tensor([[1] * len(own) + [0] * (length - len(own)) for own in ids])[None]
    text_embeds = converted.model.guide(padded, mask)[0]
    torch.testing.assert_close(text_embeds, model.encode_text(theirs, normalize=False), rtol=1e-4, atol=1e-5)

    pixels = torch.randn(2, 3, 8 * side, 8 * side, generator=torch.Generator().manual_seed(0))
    state = converted.encode_image(pixels)
    visual, features = model.visual, []
    blocks = visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks
    handle = blocks[-2].register_forward_hook(lambda *hooked: features.append(hooked[2]))
    own_pixels = torch.nn.functional.interpolate(pixels, tuple(visual.image_size), mode="bicubic", antialias=True)
    model.encode_image(own_pixels)  # the same mean and deviation as the LVLM's
    handle.remove()
    expected = patch_alone(name, visual, features[0][:, -(side**2) :])
    torch.testing.assert_close(state.patch_embeds, expected, rtol=1e-3, atol=1e-4)

    ids = torch.tensor([[config_values["backbone_config"]["image_token_index"]] * side**2 + [1, 2]] * 2)
    output = converted(
        input_ids=ids,
        image_state=state,
        guide_input_ids=padded.expand(2, -1, -1),
        guide_attention_mask=mask.expand(2, -1, -1),
    )
    torch.testing.assert_close(output.similarity, text_embeds @ expected.transpose(1, 2), rtol=1e-3, atol=1e-4)
    assert output.retained_indices.shape == (2, side**2 // 3)


def test_guide_of_another_grid_is_refused(tmp_path, config_values, other):
    _, _, folder, side = other
    vision = config_values["backbone_config"]["vision_config"] | {"image_size": 8 * (side + 1), "patch_size": 8}
    llava = LlavaConfig.from_dict(config_values["backbone_config"] | {"vision_config": vision})
    LlavaForConditionalGeneration(llava).save_pretrained(tmp_path / "llava")
    with pytest.raises(ValueError, match=rf"cuts an image into {side} x {side} but"):
        convert(tmp_path / "llava", tmp_path / "converted", clip=f"local-dir:{folder}")
    assert not (tmp_path / "converted").exists()


def test_surgery_refuses_a_guide_with_a_tower_of_its_own(make_model, config_values, other):
    _, _, folder, side = other
    settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    guide = OpenCLIPGuideConfig(architecture=settings, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    vision = config_values["backbone_config"]["vision_config"] | {"image_size": 8 * side, "patch_size": 8}
    backbone = config_values["backbone_config"] | {"vision_config": vision, "image_seq_length": side**2}
    model = make_model(guide_config=guide, backbone_config=backbone, pruning_method="surgery")
    prompt = torch.tensor([[backbone["image_token_index"]] * side**2 + [1, 2]])
    text = torch.tensor([[[5, 6, 7]]])
    with pytest.raises(ValueError, match="guide is an OpenCLIP model with a vision tower of its own"):
        model(input_ids=prompt, pixel_values=torch.zeros(1, 3, 8 * side, 8 * side), guide_input_ids=text)


def test_missing_open_clip_is_named(monkeypatch, other):
    _, _, folder, side = other
    settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config = OpenCLIPGuideConfig(architecture=settings, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match="pip install open_clip_torch"):
        LiteLVLMOpenCLIPGuide(config, side**2)


def test_lisa_needs_the_clip_of_its_vision_tower(tmp_path, other):
    with pytest.raises(ValueError, match="cannot give lisa its vision tower"):
        convert(LISA, tmp_path / "converted", clip=f"local-dir:{other[2]}", seg_token_id=5)
