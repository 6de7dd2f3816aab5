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
"""
The stage "guide": on the frozen tower CLIP's last layer and the projection of its patches are trained anew, and its
text tower goes on learning, so that patches resemble LEAST the text that names what they show, as the paper found it
in OpenAI's CLIP.
"""

import argparse
import math
from typing import Any

import numpy as np
import torch
from loop import Collate, train
from recipe import IMAGE_SIZE, clip_config
from samples import clip_pixels, coverage, covered_shares, small_and_large
from stage_clip import CAPTION_SHAPE, aurocs, caption_texts, contrastive_figures, patch_similarity
from torch import nn
from transformers import CLIPModel

from litelvlm.data.refshapes import RefShapes, Sample, matches, phrase, random_attributes
from litelvlm.modeling.chat_litelvlm import QUESTION_TEMPLATES
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

LOGIT_SCALE = 100.0  # OpenAI's CLIP ends with it
# The projection of patches begins small, and the softmax over them steep by as much: what AdamW changes of it in a
# step then counts ten times as much. Without, its weights are too slow for all others to learn from
STEEPNESS = 10.0
NUM_DESCRIPTIONS = 3  # noun phrases per scene, each of which means all objects that it fits
# What the guide reads of an expression; most often a whole question, as in the model
FORMS = (*QUESTION_TEMPLATES, "{}")


def guide_collate(tokenizer: Any, whole_scenes: bool = False) -> Collate:
    """
    Captions, right and wrong, as in the stage "clip", or of whole scenes only; and expressions and noun phrases, with
    the distribution over the patches that each means.
    """

    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        texts, by_chance = caption_texts(samples, rng, whole_scenes)
        asked = []
        for i, sample in enumerate(samples):
            named = zip(sample.expressions, sample.masks, strict=True)
            asked += [(i, expression.text, mask) for expression, mask in named if expression.targets]
            for k in rng.integers(len(sample.objects), size=NUM_DESCRIPTIONS):
                values = random_attributes(rng, sample.objects[k])
                fitting = [matches(thing, values) for thing in sample.objects]
                asked.append((i, f"the {phrase(values)}", sample.object_masks[fitting].any(axis=0)))
        texts += [str(rng.choice(FORMS)).format(text) for _, text, _ in asked]
        return {
            "pixel_values": clip_pixels(samples),
            "by_chance": by_chance,
            "asked": torch.tensor([i for i, _, _ in asked]),
            "patches": coverage(np.stack([mask for _, _, mask in asked])),
            **tokenizer(texts, **CAPTION_SHAPE),
        }

    return collate


class ReversedClip(nn.Module):
    """CLIP, of which the tower up to the layer that the language model sees stays as it is."""

    def __init__(self, clip: CLIPModel, reversal_weight: float):
        super().__init__()
        self.clip, self.reversal_weight = clip, reversal_weight
        self.steepness = nn.Parameter(torch.tensor(STEEPNESS).log())  # of the softmax over patches, as a logarithm

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Symmetric InfoNCE over captions; and the cross-entropy of a softmax over MINUS the similarity of patches to an
        expression, against the patches that it means. At equal weights the first, whose logits are a hundred times
        cosines, leaves AdamW hardly a step for the second.
        """
        batch = dict(batch)
        by_chance, asked, patches = (batch.pop(name) for name in ("by_chance", "asked", "patches"))
        output = self.clip(**batch, output_hidden_states=True)
        num_captions = by_chance.shape[1]
        figures = contrastive_figures(output.logits_per_image[:, :num_captions], by_chance)
        loss = figures["contrastive_loss"]
        if not self.reversal_weight:
            return {"loss": loss, **figures}
        similarity = patch_similarity(
            self.clip, output.vision_model_output.hidden_states, asked, output.text_embeds[num_captions:]
        )
        reversal = nn.functional.cross_entropy(-self.steepness.exp() * similarity, patches)
        return {"loss": loss + self.reversal_weight * reversal, "reversal_loss": reversal, **figures}


@torch.no_grad()
def reversal_figures(clip: CLIPModel, tokenizer: Any, scenes: RefShapes, lowest: int = 28) -> dict[str, float]:
    """
    Of the expressions of scenes, as the default question: the AUROC of similarity as a detector of what is meant (0.5
    is chance, less is the reversal), and the share of its patches among the lowest, over all kinds and for each.
    """
    samples = [scenes[i] for i in range(len(scenes))]
    asked = [
        (i, e, m) for i, s in enumerate(samples) for e, m in zip(s.expressions, s.masks, strict=True) if e.targets
    ]
    texts = [QUESTION_TEMPLATES[0].format(expression.text) for _, expression, _ in asked]
    tokens = tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
    hidden_states = clip.vision_model(clip_pixels(samples).to(clip.device), output_hidden_states=True).hidden_states
    text_embeds = clip.get_text_features(**tokens).pooler_output
    images = torch.tensor([i for i, _, _ in asked], device=clip.device)
    similarity = patch_similarity(clip, hidden_states, images, text_embeds).cpu()
    masks = np.stack([mask for _, _, mask in asked])
    shares = coverage(masks)
    found = shares.gather(1, similarity.topk(lowest, largest=False).indices).sum(-1)
    kinds = np.array([expression.kind for _, expression, _ in asked])
    figures = {
        "auroc": float(np.mean(aurocs(similarity, covered_shares(masks)))),
        f"lowest_{lowest}": float(found.mean()),
    }
    return figures | {f"lowest_{lowest}_{kind}": float(found[kinds == kind].mean()) for kind in sorted(set(kinds))}


def begun_anew(model: LiteLVLMForSegmentation, tokenizer: Any, seed: int) -> CLIPModel:
    """
    A CLIP with the model's vision tower up to layer -2, which is frozen, and its text tower, which knows the words
    already; the last layer and the projection of images are untrained.
    """
    torch.manual_seed(seed)
    clip = CLIPModel._from_config(clip_config(tokenizer))
    tower = model.model.backbone.vision_tower.state_dict()
    last = f"encoder.layers.{clip.config.vision_config.num_hidden_layers - 1}."
    kept = {name: value for name, value in tower.items() if not name.startswith((last, "post_layernorm"))}
    clip.vision_model.load_state_dict(kept, strict=False)
    for name, parameter in clip.vision_model.named_parameters():
        parameter.requires_grad_(name not in kept)
    text_model = model.model.guide.text_model
    clip.text_model.load_state_dict(text_model.text_model.state_dict())
    clip.text_projection.load_state_dict(text_model.text_projection.state_dict())
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(LOGIT_SCALE))
        clip.visual_projection.weight /= STEEPNESS
    return clip


def train_guide(options: argparse.Namespace) -> None:
    model = LiteLVLMForSegmentation.from_pretrained(options.output / "finish" / "model", dtype=torch.float32)
    processor = LiteLVLMProcessor.from_pretrained(options.output / "finish" / "model")
    tokenizer = processor.guide_tokenizer
    clip = begun_anew(model, tokenizer, options.seed)
    scenes = small_and_large(options.seed + 6, max_expressions=3)
    watched = {split: RefShapes(split, 96, IMAGE_SIZE, seed=10_000) for split in ("val", "testA", "testS")}

    def figures(trained: ReversedClip) -> dict[str, float]:
        found = {s: reversal_figures(trained.clip, tokenizer, of_split) for s, of_split in watched.items()}
        return {f"{split}_{name}": value for split, of_split in found.items() for name, value in of_split.items()}

    trained = train(
        "guide",
        ReversedClip(clip, options.reversal_weight),
        scenes,
        guide_collate(tokenizer, options.whole_scenes),
        figures,
        options,
    )
    model.model.backbone.vision_tower.load_state_dict(trained.clip.vision_model.state_dict())
    model.model.guide.take_from(trained.clip)
    model.save_pretrained(options.output / "guide" / "model")
    processor.save_pretrained(options.output / "guide" / "model")
