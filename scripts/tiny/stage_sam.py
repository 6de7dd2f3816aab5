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
"""The stage "sam": SAM learns to draw masks of objects whose patches are given."""

import argparse

import numpy as np
import torch
from loop import train
from position_waves import position_waves
from recipe import IMAGE_SIZE, MASK_EMBEDDING_SIZE, NUM_VISUAL_TOKENS
from samples import coverage, sam_pixels
from torch import nn
from untrained import build_tokenizers, untrained_lvlm

from litelvlm.data.refshapes import RefShapes, Sample
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.modeling.sam_litelvlm import LiteLVLMSam, mask_losses

OBJECTS_PER_SCENE = 4  # whose masks are learnt


class PatchPrompt(nn.Linear):
    """
    The mask embedding of a distribution over patches. SAM is trained with it as others are with points and boxes, and
    the language model learns to give the same; it is no part of the model.
    """

    def __init__(self) -> None:
        super().__init__(NUM_VISUAL_TOKENS, MASK_EMBEDDING_SIZE)
        with torch.no_grad():
            # Neighbours alike, and waves that the vision tower has too: what looks nearly right is nearly right
            self.weight.copy_(position_waves(MASK_EMBEDDING_SIZE, amplitude=1.0).T)


def blurred(patches: torch.Tensor, others: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Distributions as a language model may give them: with patches missing, and some weight on other objects."""
    count = len(patches)
    missing = torch.from_numpy(
        rng.random(patches.shape) < rng.uniform(0, 0.7, (count, 1)) * (rng.random((count, 1)) < 0.6)
    )
    kept = patches.masked_fill(missing, 0)
    kept = torch.where(kept.sum(-1, keepdim=True) > 0.05, kept, patches)
    kept = kept / kept.sum(-1, keepdim=True)
    leak = torch.from_numpy(rng.uniform(0, 0.3, (count, 1)) * (rng.random((count, 1)) < 0.5)).float()
    return (1 - leak) * kept + leak * others


def sam_collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    patches, labels = [], []
    for sample in samples:
        count = len(sample.objects)
        of_objects = coverage(sample.object_masks)
        groups = [
            rng.permutation(count)[: rng.integers(2, 4) if rng.random() < 0.15 else 1]
            for _ in range(OBJECTS_PER_SCENE)
        ]
        masks = np.stack([sample.object_masks[group].any(axis=0) for group in groups])
        others = of_objects[torch.from_numpy(rng.integers(count, size=len(groups)))]
        patches.append(blurred(coverage(masks), others, rng))
        labels.append(torch.from_numpy(masks).float())
    return {
        "sam_pixel_values": sam_pixels(samples),
        "patches": torch.stack(patches).float(),
        "labels": torch.stack(labels),
    }


class PromptedSam(nn.Module):
    """The model's SAM, prompted by patches."""

    def __init__(self, sam: LiteLVLMSam):
        super().__init__()
        self.sam = sam
        self.prompt = PatchPrompt()

    def masks(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits, shape `(batch, objects, h, h)`."""
        image_embeddings = self.sam.encode_image(batch["sam_pixel_values"])
        return self.sam.decode_masks(self.prompt(batch["patches"]), image_embeddings)[0]

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        masks = self.masks(batch)
        bce_loss, dice_loss = mask_losses([masks.flatten(0, 1)], [batch["labels"].flatten(0, 1)])
        return {"loss": 2 * bce_loss + dice_loss, "bce_loss": bce_loss, "dice_loss": dice_loss}


def mask_quality(model: PromptedSam, scenes: RefShapes) -> dict[str, float]:
    """cIoU and gIoU, as fractions, of masks whose patches are given."""
    iou = CumulativeIoU()
    for start in range(0, len(scenes), 32):
        batch = sam_collate([scenes[i] for i in range(start, start + 32)], np.random.default_rng(start))
        batch = {name: value.to(model.prompt.weight.device) for name, value in batch.items()}
        masks = nn.functional.interpolate(model.masks(batch).float(), batch["labels"].shape[-2:], mode="bilinear") > 0
        for predicted, expected in zip(masks.cpu().numpy(), batch["labels"].cpu().numpy() > 0, strict=True):
            iou.update(predicted, expected)
    return {"ciou": iou.ciou, "giou": iou.giou}


def train_sam(options: argparse.Namespace) -> None:
    build_tokenizers(options)
    model, _ = untrained_lvlm(options)
    model.sam.set_attn_implementation("eager")
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed + 1, max_expressions=1)
    watched = RefShapes("testC", 96, IMAGE_SIZE, seed=10_000)
    train("sam", PromptedSam(model.sam), scenes, sam_collate, lambda sam: mask_quality(sam, watched), options)
