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
"""Diagnosis: what is seen of a patch, the verdict, and any CLIP without a language model."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipImageProcessor

import litelvlm
from litelvlm.commands.main import main
from litelvlm.data.registry import load_split
from litelvlm.evaluation.clip import load_clip
from litelvlm.evaluation.diagnose import verdict
from litelvlm.evaluation.runs import Run
from litelvlm.evaluation.similarity import (
    diagnose_image,
    look,
    object_cover,
    reversal_auroc,
    similarities,
    tower_cosine,
)

from ..siglip import gemma_tokenizer, write_siglip


@pytest.fixture(scope="module")
def entry():
    (entry,) = load_split("refshapes", "val", num_images=1, size=256, seed=2)
    return entry


def asked(entry):
    return [(expression, expression.load_mask()) for expression in entry.expressions]


def test_cover_is_the_share_of_each_patch_that_clip_sees():
    mask = np.zeros((8, 12), np.uint8)
    mask[:4, :4] = 1
    assert object_cover(mask, 2, cropped=False).tolist() == pytest.approx([4 / 6, 0, 0, 0])
    # The central square is columns 2 to 9
    assert object_cover(mask, 2, cropped=True).tolist() == [0.5, 0, 0, 0]
    assert object_cover(mask * 255, 2, cropped=False).sum() == 0  # ignored pixels are no object


def test_auroc_of_the_reversal_counts_pairs_of_patches_and_ties_by_half():
    similarity = torch.tensor([1.0, 3.0, 2.0, 3.0, 9.0])
    is_object = torch.tensor([True, True, False, False, False])
    is_background = torch.tensor([False, False, True, True, False])
    # 1 < 2, 1 < 3, 3 > 2 and a tie; the last patch is neither
    assert reversal_auroc(similarity, is_object, is_background) == pytest.approx(2.5 / 4)


def test_similarity_is_that_of_the_whole_model_though_no_language_model_is_read(entry):
    whole, processor = litelvlm.load_tiny()
    model, clip_processor = load_clip(str(litelvlm.TINY_MODEL))
    assert len(model.backbone.language_model.layers) == 0
    expressions = [expression for expression, _ in asked(entry)]
    with torch.inference_mode():
        similarity = similarities(model, *look(model, clip_processor, entry.load_image(), expressions))
    inputs = processor(entry.load_image(), [expression.text for expression in expressions])
    output = whole.segment(**inputs, max_new_tokens=1)
    torch.testing.assert_close(similarity, output.similarity[:, 0], atol=1e-3, rtol=1e-3)


def write_clip(model, processor, folder):
    """The CLIP that a model has in it, by itself."""
    config = model.config
    vision, text = config.backbone_config.vision_config.to_dict(), config.guide_config.to_dict()
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=vision["projection_dim"]))
    clip.vision_model.load_state_dict(model.backbone.vision_tower.state_dict())
    clip.visual_projection.load_state_dict(model.guide.visual_projection.state_dict())
    clip.text_model.load_state_dict(model.guide.text_model.text_model.state_dict())
    clip.text_projection.load_state_dict(model.guide.text_model.text_projection.state_dict())
    for part in (clip, processor.guide_tokenizer, processor.image_processor):
        part.save_pretrained(folder)
    return clip


def test_plain_clip_is_diagnosed_like_the_model_it_is_part_of(entry, tmp_path):
    model, processor = load_clip(str(litelvlm.TINY_MODEL))
    write_clip(model, processor, tmp_path)
    # A CLIP by itself has the method's default order; the model's own is another
    runs = [Run("generation", "litelvlm", 85, (("similarity_order", "lowest"),))]
    plain = diagnose_image(*load_clip(str(tmp_path)), "a", entry.load_image(), asked(entry), runs)
    whole = diagnose_image(model, processor, "a", entry.load_image(), asked(entry), runs)
    assert len(plain) == len(whole) == len(entry.expressions)
    for one, other in zip(plain, whole, strict=True):
        assert one.figures == pytest.approx(other.figures, abs=1e-4)


def test_recall_without_context_for_one_text_is_the_share_in_the_lowest_patches(entry):
    model, processor = load_clip(str(litelvlm.TINY_MODEL))
    alone = ("num_context_tokens", 0)  # whatever the rule, no budget goes to the context
    for order in ("lowest", "highest"):
        run = Run("generation", "litelvlm", 85, (("similarity_order", order), alone))
        for one in diagnose_image(model, processor, "a", entry.load_image(), asked(entry), [run]):
            assert one.figures[f"recall/{run.variant}/85"] == one.figures[f"{order}_85"]
            assert 0 <= one.figures["auroc"] <= 1


def test_plain_siglip_is_diagnosed_by_its_patches_alone(entry, tmp_path):
    siglip = write_siglip(tmp_path, gemma_tokenizer())
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model, processor = load_clip(str(tmp_path))
    with torch.inference_mode():
        inputs, state = look(model, processor, entry.load_image(), entry.expressions[:2])
        patches = siglip.vision_model(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0]
        alone = siglip.vision_model.head(siglip.vision_model.post_layernorm(patches)[:, None])
        texts = siglip.get_text_features(input_ids=inputs["guide_input_ids"][:, 0]).pooler_output
        torch.testing.assert_close(similarities(model, inputs, state), texts @ alone.T, rtol=1e-4, atol=1e-4)
    found = diagnose_image(model, processor, "a", entry.load_image(), asked(entry), [])
    assert found and all(0 <= one.figures["auroc"] <= 1 for one in found)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_tower_is_compared_with_the_one_it_comes_from(entry, tmp_path, kind):
    """At the layer that the guide reads, which is the last but one of a CLIP or SigLIP by itself."""
    if kind == "clip":
        parent = write_clip(*load_clip(str(litelvlm.TINY_MODEL)), tmp_path)
    else:
        parent = write_siglip(tmp_path, gemma_tokenizer())
        SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model, processor = load_clip(str(tmp_path))
    image = entry.load_image()
    assert tower_cosine(model, processor, parent, image) == pytest.approx(1, abs=1e-5)
    layers = model.backbone.vision_tower.encoder.layers
    found = []
    for step in range(3):
        with torch.no_grad():  # each time further from where it began; what follows the layer changes nothing
            layers[-1].mlp.fc1.weight.add_(1)
            if step:
                layers[0].mlp.fc2.bias.add_(torch.linspace(-1, 1, layers[0].mlp.fc2.bias.numel()))
        found.append(tower_cosine(model, processor, parent, image))
    assert found[0] == pytest.approx(1, abs=1e-5) and 1 > found[1] > found[2]


def test_command_tells_how_far_the_tower_has_moved(tmp_path, capsys):
    clip = write_clip(*load_clip(str(litelvlm.TINY_MODEL)), tmp_path / "clip")
    options = ["diagnose", "--images", "1", "--device", "cpu", "--num-retained-tokens", "85", "--parent"]
    assert main([*options, str(tmp_path / "clip"), "--output", str(tmp_path / "same")]) == 0
    assert "The patches that the guide reads have a cosine of 1.000" in capsys.readouterr().out
    with torch.no_grad():
        bias = clip.vision_model.encoder.layers[0].mlp.fc2.bias
        bias.add_(torch.linspace(-9, 9, bias.numel()))
    clip.save_pretrained(tmp_path / "clip")
    assert main([*options, str(tmp_path / "clip"), "--output", str(tmp_path / "moved")]) == 0
    report = json.loads((tmp_path / "moved" / "diagnosis.json").read_text())
    cosine = report["figures"]["tower_cosine"][0]
    assert cosine < 0.999 and f"a cosine of {cosine:.3f}" in report["tower"]
    write_siglip(tmp_path / "siglip", gemma_tokenizer())
    assert main([*options, str(tmp_path / "siglip"), "--output", str(tmp_path / "other")]) == 2
    assert "is a 'siglip' model, but the vision tower" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("auroc", "words"),
    [
        ((0.65, 0.6, 0.7), "holds here: the named object's patches are LESS similar"),
        ((0.3, 0.2, 0.4), "does not hold here: the named object's patches are MORE similar"),
        ((0.52, 0.4, 0.6), "7 expressions do not tell"),
    ],
)
def test_verdict_follows_the_interval(auroc, words):
    figures = {"auroc": auroc, "lowest_85": (0.62, 0.5, 0.7), "highest_85": (0.31, 0.2, 0.4)}
    sentence = verdict(figures, 256, 7)
    assert words in sentence and sentence.endswith(".") and f"{auroc[0]:.2f}" in sentence
    assert ("the 85 lowest of 256 patches hold 62 % of them" in sentence) == ("do not tell" not in sentence)
