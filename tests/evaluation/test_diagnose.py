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

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import litelvlm
from litelvlm.data.registry import load_split
from litelvlm.evaluation.clip import load_clip
from litelvlm.evaluation.diagnose import verdict
from litelvlm.evaluation.runs import Run
from litelvlm.evaluation.similarity import diagnose_image, look, object_cover, reversal_auroc, similarities


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


def test_plain_clip_is_diagnosed_like_the_model_it_is_part_of(entry, tmp_path):
    model, processor = load_clip(str(litelvlm.TINY_MODEL))
    config = model.config
    vision, text = config.backbone_config.vision_config.to_dict(), config.guide_config.to_dict()
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=vision["projection_dim"]))
    clip.vision_model.load_state_dict(model.backbone.vision_tower.state_dict())
    clip.visual_projection.load_state_dict(model.guide.visual_projection.state_dict())
    clip.text_model.load_state_dict(model.guide.text_model.text_model.state_dict())
    clip.text_projection.load_state_dict(model.guide.text_model.text_projection.state_dict())
    for part in (clip, processor.guide_tokenizer, processor.image_processor):
        part.save_pretrained(tmp_path)
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
