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
"""The stage "clip": captions are read, contrastively, beside some that one changed word makes wrong."""

import argparse
from typing import Any

import numpy as np
import torch
from loop import Collate, load_weights, train
from recipe import IMAGE_SIZE
from samples import ATTRIBUTE_VALUES, clip_pixels, covered_shares, patch_names
from sklearn.metrics import roc_auc_score
from stage_see import SeeingClip
from torch import nn
from transformers import CLIPModel
from untrained import untrained_clip

from litelvlm.data.refshapes import ATTRIBUTES, RefObject, RefShapes, Sample, caption, matches, random_attributes

CAPTIONS = ("{}", "a picture of {}", "an image with {}", "there is {} in this image")
# One shape for all batches, as the model is compiled; longer captions lose their end
CAPTION_SHAPE = {"padding": "max_length", "truncation": True, "max_length": 40, "return_tensors": "pt"}
NUM_NEGATIVES = 2  # captions per image that one changed word makes wrong


def made_wrong(
    rng: np.random.Generator, objects: tuple[RefObject, ...], described: list[dict[str, str]]
) -> list[dict[str, str]]:
    """The descriptions with one attribute of one changed, so that it fits no object: only reading the text tells."""
    tries = 0
    while True:
        tries += 1
        i = int(rng.integers(len(described)))
        # Many objects may leave no combination of the described attributes free: then one more word makes it wrong
        name = str(rng.choice(list(described[i]) if tries < 50 else ATTRIBUTES))
        # First another object's value: a word that belongs to the scene, but not to this object
        values = [getattr(o, name) for o in objects] if tries < 5 else ATTRIBUTE_VALUES[name]
        changed = described[i] | {name: str(rng.choice(values))}
        if not any(matches(o, changed) for o in objects):
            return [*described[:i], changed, *described[i + 1 :]]


def fits(scenes: list[tuple[RefObject, ...]], captions: list[list[dict[str, str]]]) -> torch.Tensor:
    """Whether each description of a caption fits some object of a scene, bool of shape `(scenes, captions)`."""
    index = {(n, v): i for i, (n, v) in enumerate((n, v) for n, known in ATTRIBUTE_VALUES.items() for v in known)}
    objects = torch.zeros(len(scenes), max(map(len, scenes)), len(index))
    wanted = torch.zeros(len(captions), max(map(len, captions)), len(index))
    for i, scene in enumerate(scenes):
        for j, thing in enumerate(scene):
            objects[i, j, [index[name, getattr(thing, name)] for name in ATTRIBUTES]] = 1
    for i, described in enumerate(captions):
        for j, values in enumerate(described):
            wanted[i, j, [index[item] for item in values.items()]] = 1
    found = torch.einsum("ijk,tlk->itjl", objects, wanted) >= wanted.sum(-1)[None, :, None]
    return found.any(dim=2).all(dim=-1)


def caption_texts(
    samples: list[Sample], rng: np.random.Generator, whole_scenes: bool = False
) -> tuple[list[str], torch.Tensor]:
    """
    Captions of B images, first the right ones and then [`NUM_NEGATIVES`] times wrong ones; and which of the others'
    fit an image by chance, and are no wrong answer to it, bool of shape `(B, captions)`.
    """
    scenes = [sample.objects for sample in samples]
    captions = []
    for i, objects in enumerate(scenes):
        # Every second caption is of the whole scene, the others of one object
        chosen = rng.permutation(len(objects))[: None if i % 2 or whole_scenes else 1]
        captions.append([random_attributes(rng, objects[k], fewest=2) for k in chosen])
    for _ in range(NUM_NEGATIVES):
        captions += [made_wrong(rng, *pair) for pair in zip(scenes, captions[: len(scenes)], strict=True)]
    by_chance = fits(scenes, captions) & ~torch.eye(len(scenes), len(captions), dtype=torch.bool)
    forms = rng.choice(CAPTIONS, len(captions))
    return [form.format(caption(c)) for form, c in zip(forms, captions, strict=True)], by_chance


def clip_collate(tokenizer: Any) -> Collate:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        texts, by_chance = caption_texts(samples, rng)
        tokens = tokenizer(texts, **CAPTION_SHAPE)
        return {"pixel_values": clip_pixels(samples), "by_chance": by_chance, "names": patch_names(samples), **tokens}

    return collate


def contrastive_figures(logits: torch.Tensor, by_chance: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Symmetric InfoNCE, where each image also has wrong captions of its own to tell from the right one; and how often
    the right caption is the best one, of all and of the image's own.

    Args:
        logits (`torch.Tensor` of shape `(B, B * (1 + NUM_NEGATIVES))`): of images and captions.
        by_chance (`torch.BoolTensor` of the same shape): as in [`caption_texts`].
    """
    logits = logits.float().masked_fill(by_chance, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    texts = logits[:, : len(logits)].T
    loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(texts, target)) / 2
    own = logits.unflatten(1, (-1, len(logits))).diagonal(dim1=0, dim2=2)  # [1 + NUM_NEGATIVES, B]
    accuracy, own_accuracy = (logits.argmax(-1) == target).float().mean(), (own.argmax(0) == 0).float().mean()
    return {"contrastive_loss": loss, "accuracy": accuracy, "own_accuracy": own_accuracy}


class ReadingClip(SeeingClip):
    """CLIP and the probe of the stage before, with captions."""

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The loss of [`contrastive_figures`] and the probe's."""
        batch = dict(batch)
        by_chance, names = batch.pop("by_chance"), batch.pop("names")
        output = self.clip(**batch, output_hidden_states=True)
        figures = contrastive_figures(output.logits_per_image, by_chance)
        patches = output.vision_model_output.hidden_states[-2][:, 1:]
        naming_loss = self.namer.loss(patches, names)
        # The contrastive loss alone takes far longer to see textures, and forgets them once it is alone again
        loss = figures["contrastive_loss"] + naming_loss
        return {"loss": loss, "naming_loss": naming_loss, **figures, **self.namer.accuracies(patches, names)}


def patch_similarity(
    clip: CLIPModel, hidden_states: tuple[torch.Tensor, ...], images: torch.Tensor, text_embeds: torch.Tensor
) -> torch.Tensor:
    """Dot products `(R, N)` of each text with the patches of its image, in layer -2, as the model takes them."""
    patches = clip.visual_projection(clip.vision_model.post_layernorm(hidden_states[-2][:, 1:])).float()
    return (patches[images] @ text_embeds.float()[..., None])[..., 0]


def aurocs(similarity: torch.Tensor, covered: torch.Tensor) -> list[float]:
    """
    AUROC of similarity as a detector of the patches that the object covers by more than half, against those that it
    leaves free, of each image that has such patches; both arguments of shape `(images, patches)`.
    """
    found = []
    for of_image, cover in zip(similarity.float().numpy(), covered.numpy(), strict=True):
        inside, outside = cover > 0.5, cover == 0
        if inside.any():
            judged = inside | outside
            found.append(float(roc_auc_score(inside[judged], of_image[judged])))
    return found


def auroc_of_similarity(model: CLIPModel, tokenizer: Any, scenes: RefShapes, batch_size: int = 64) -> float:
    """
    AUROC of patch-text similarity (layer -2) as a detector of the named object's patches, a mean over scenes: 0.5 is
    chance, less is the paper's reversal.
    """
    values = []
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        texts = [f"a {s.expressions[0].text.removeprefix('the ')}" for s in samples]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        device = model.logit_scale.device
        pixels = clip_pixels(samples).to(device)
        hidden_states = model.vision_model(pixels, output_hidden_states=True).hidden_states
        embeds = model.get_text_features(**tokens.to(device)).pooler_output
        similarity = patch_similarity(model, hidden_states, torch.arange(len(samples), device=device), embeds).cpu()
        values += aurocs(similarity, covered_shares(np.stack([s.masks[0] for s in samples])))
    return float(np.mean(values))


def train_clip(options: argparse.Namespace) -> None:
    clip, guide_tokenizer = untrained_clip(options)
    model = ReadingClip(clip)
    model.load_state_dict(load_weights(options.output / "see"))
    model.compile(dynamic=False)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed + 3, num_objects=(2, 6), max_expressions=1)
    watched = RefShapes("testA", 128, IMAGE_SIZE, seed=10_000)

    def figures(model: ReadingClip) -> dict[str, float]:
        return {"auroc_of_similarity": auroc_of_similarity(model.clip, guide_tokenizer, watched)}

    trained = train("clip", model, scenes, clip_collate(guide_tokenizer), figures, options)
    trained.clip.save_pretrained(options.output / "clip" / "final")
