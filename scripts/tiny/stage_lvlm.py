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
"""The stage "lvlm": the language model learns to answer, to point and to look, around the frozen CLIP and SAM."""

import argparse
from typing import Any

import numpy as np
import torch
from conversations import answered, lvlm_collate
from loop import load_weights, train
from pointing import POINTED, Pointer, looking_loss
from recipe import IMAGE_SIZE
from stage_sam import PatchPrompt, PromptedSam
from torch import nn
from transformers import CLIPModel
from untrained import untrained_lvlm

from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

ASKED = ("input_ids", "attention_mask", "pixel_values", "sam_pixel_values", "guide_input_ids", "guide_attention_mask")


class WithPointers(nn.Module):
    """
    The model and its probes, thrown away after training: pointers, which teach the language model to find what each
    noun phrase names, and the patch prompt, which tells what mask embedding SAM was trained with.
    """

    def __init__(self, lvlm: LiteLVLMForSegmentation):
        super().__init__()
        self.lvlm = lvlm
        self.masks = False  # whether masks are learnt too
        self.prompt = PatchPrompt().requires_grad_(False)
        width = lvlm.config.get_text_config().hidden_size
        self.pointers = nn.ModuleDict({name: Pointer(width) for name in POINTED})

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            image_state = self.lvlm.model.encode_image(batch["pixel_values"], pruning_method="none")
        if self.masks:
            image_state.sam_image_embeddings = self.lvlm.sam.encode_image(batch["sam_pixel_values"])
        asked = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        asked |= {"mask_labels": batch["mask_labels"]} if self.masks else {}
        # The method is training-free: the model never sees a pruned image
        output = self.lvlm(**asked, image_state=image_state, pruning_method="none", output_hidden_states=True)
        losses, hits = self.point(batch, output.hidden_states)
        losses["embedding_loss"] = self.embedding_loss(batch, output.last_hidden_state)
        if self.masks:
            # Masks say best what is wanted of a mask embedding
            losses["loss"] = output.loss + 0.3 * sum(losses.values())
            return losses | {name: output[name] for name in ("ce_loss", "bce_loss", "dice_loss")} | hits
        return {"loss": output.loss + sum(losses.values()), "ce_loss": output.loss, **losses, **hits}

    def point(
        self, batch: dict[str, Any], hidden_states: tuple[torch.Tensor, ...]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Losses of pointing and looking, and the share of the tokens that point at what they mean."""
        losses, hits = {}, {}
        language_model = self.lvlm.model.backbone.language_model
        is_patch = batch["input_ids"] == self.lvlm.config.image_token_id
        for name, layer in POINTED.items():
            hidden, tokens, wanted = hidden_states[layer], batch[f"{name}_tokens"], batch[f"{name}_patches"]
            patches = hidden[is_patch].view(len(hidden), -1, hidden.shape[-1])
            scores = self.pointers[name](hidden, patches, tokens)
            looking = looking_loss(language_model, layer, hidden, batch, tokens, wanted, is_patch)
            losses |= {f"{name}_looking_loss": looking, f"{name}_loss": nn.functional.cross_entropy(scores, wanted)}
            hits[f"{name}_accuracy"] = (wanted.gather(1, scores.argmax(-1, keepdim=True)) > 0).float().mean()
        return losses, hits

    def embedding_loss(self, batch: dict[str, Any], last_hidden_state: torch.Tensor) -> torch.Tensor:
        """Error of the mask embeddings, relative to the variance of those that SAM was trained with."""
        sample, position = (batch["input_ids"][:, 1:] == self.lvlm.config.seg_token_id).nonzero(as_tuple=True)
        given = self.lvlm.seg_head(last_hidden_state[sample, position]).float()
        wanted = self.prompt(batch["seg_patches"]).float()
        return nn.functional.mse_loss(given, wanted) / wanted.var()


def teacher_forced_ciou(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, scenes: RefShapes, batch_size: int = 32
) -> float:
    """cIoU at the image's size, un-pruned, as a fraction."""
    collate, iou = lvlm_collate(processor), CumulativeIoU()
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        batch = collate(samples, np.random.default_rng(start))
        output = model(**{name: batch[name].to(model.device) for name in ASKED}, pruning_method="none")
        masks = processor.post_process_masks(output.pred_masks, batch["original_sizes"], batch["reshaped_input_sizes"])
        for predicted, sample in zip(masks, samples, strict=True):
            iou.update(predicted.cpu().numpy(), sample.masks[answered(sample)])
    return iou.ciou


def train_lvlm(options: argparse.Namespace) -> None:
    model, processor = untrained_lvlm(options)
    whole = WithPointers(model)
    clip = CLIPModel.from_pretrained(options.output / "clip" / "final")
    model.model.backbone.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.model.guide.take_from(clip)
    model.model.guide.requires_grad_(False)
    sam = PromptedSam(model.sam)
    sam.load_state_dict(load_weights(options.output / "sam"))
    whole.prompt.load_state_dict(sam.prompt.state_dict())
    model.sam.requires_grad_(False)
    train_whole("lvlm", whole, processor, options.seed + 4, options)


def train_whole(
    name: str, whole: WithPointers, processor: LiteLVLMProcessor, seed: int, options: argparse.Namespace
) -> None:
    """Trains the model with its probes, and watches the cIoU on two splits."""
    for layer in whole.lvlm.model.backbone.language_model.layers:
        layer.compile(dynamic=False)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, seed, max_expressions=6)
    watched = [RefShapes(split, 96, IMAGE_SIZE, seed=10_000) for split in ("val", "testC")]

    def figures(whole: WithPointers) -> dict[str, float]:
        return {f"{split.split}_ciou": teacher_forced_ciou(whole.lvlm, processor, split) for split in watched}

    train(name, whole, scenes, lvlm_collate(processor), figures, options)
