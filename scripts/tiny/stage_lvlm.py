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
from patch_dropout import PATCH_DROPOUT, PatchDropout
from pointing import POINTED, Pointer, as_seen, looking_loss, predicting_seg
from recipe import IMAGE_SIZE
from stage_sam import PatchPrompt, PromptedSam
from torch import nn
from transformers import CLIPModel
from untrained import untrained_lvlm

from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.outputs_litelvlm import LiteLVLMImageState
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

ASKED = ("input_ids", "attention_mask", "pixel_values", "sam_pixel_values", "guide_input_ids", "guide_attention_mask")


class WithPointers(nn.Module):
    """
    The model and its probes, thrown away after training: pointers, which teach the language model to find what each
    noun phrase names, and the patch prompt, which tells what mask embedding SAM was trained with.

    Args:
        lvlm ([`LiteLVLMForSegmentation`]): the model.
        masks (`bool`): whether masks are learnt too.
        teacher ([`LiteLVLMForSegmentation`], *optional*): a model with the same vision tower, whose mask embeddings
            without pruning are wanted in place of those of the patch prompt.
    """

    def __init__(
        self, lvlm: LiteLVLMForSegmentation, masks: bool = False, teacher: LiteLVLMForSegmentation | None = None
    ):
        super().__init__()
        self.lvlm, self.masks, self.teacher = lvlm, masks, teacher
        self.prompt = PatchPrompt().requires_grad_(False)
        self.dropout = PatchDropout()
        width = lvlm.config.get_text_config().hidden_size
        self.pointers = nn.ModuleDict({name: Pointer(width) for name in POINTED})

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        retained = self.retain(batch)
        with torch.no_grad():
            image_state = self.lvlm.model.encode_image(
                batch["pixel_values"], pruning_method=retained["pruning_method"]
            )
        if self.masks:
            image_state.sam_image_embeddings = self.lvlm.sam.encode_image(batch["sam_pixel_values"])
        asked = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        asked |= {"mask_labels": batch["mask_labels"]} if self.masks else {}
        output = self.lvlm(**asked, **retained, image_state=image_state, output_hidden_states=True)
        seen = as_seen(batch, output, self.lvlm.config)
        losses, hits = self.point(seen, output.hidden_states)
        with torch.no_grad():
            wanted = self.wanted_embeddings(batch, image_state)
        losses["embedding_loss"] = embedding_loss(self.lvlm, output.last_hidden_state, seen["predicting"], wanted)
        if self.masks:
            # Masks say best what is wanted of a mask embedding
            losses["loss"] = output.loss + 0.3 * sum(losses.values())
            return losses | {name: output[name] for name in ("ce_loss", "bce_loss", "dice_loss")} | hits
        return {"loss": output.loss + sum(losses.values()), "ce_loss": output.loss, **losses, **hits}

    def retain(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Arguments that keep the patches drawn with a batch, or all; what pruning methods look at plays no part."""
        if "kept" not in batch:
            return {"pruning_method": "none"}
        self.dropout.kept = batch["kept"]
        self.lvlm.config.position_mode = batch["position_mode"]
        return {"pruning_method": PATCH_DROPOUT, "num_retained_tokens": batch["kept"].shape[1]}

    def point(
        self, batch: dict[str, Any], hidden_states: tuple[torch.Tensor, ...]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """
        Losses of pointing and looking, and the share of the tokens that point at what they mean.

        Args:
            batch: as the language model saw it, see [`as_seen`].
            hidden_states: of its layers.
        """
        losses, hits = {}, {}
        language_model = self.lvlm.model.backbone.language_model
        is_patch = batch["is_patch"]
        for name, layer in POINTED.items():
            hidden, tokens, wanted = hidden_states[layer], batch[f"{name}_tokens"], batch[f"{name}_patches"]
            patches = hidden[is_patch].view(len(hidden), -1, hidden.shape[-1])
            scores = self.pointers[name](hidden, patches, tokens)
            looking = looking_loss(language_model, layer, hidden, batch, tokens, wanted)
            losses |= {f"{name}_looking_loss": looking, f"{name}_loss": nn.functional.cross_entropy(scores, wanted)}
            hits[f"{name}_accuracy"] = (wanted.gather(1, scores.argmax(-1, keepdim=True)) > 0).float().mean()
        return losses, hits

    def wanted_embeddings(self, batch: dict[str, Any], image_state: LiteLVLMImageState) -> torch.Tensor:
        """The mask embedding wanted of each [SEG], `(masks, C)`."""
        if self.teacher is None:
            return self.prompt(batch["seg_patches"]).float()
        asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
        output = self.teacher.model(**asked, image_state=image_state, pruning_method="none")
        sample, position = predicting_seg(batch["input_ids"], self.lvlm.config.seg_token_id).T
        return self.teacher.seg_head(output.last_hidden_state[sample, position]).float()


def embedding_loss(
    lvlm: LiteLVLMForSegmentation, last_hidden_state: torch.Tensor, predicting: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Error of the mask embeddings, relative to the variance of those that are wanted."""
    sample, position = predicting.T
    given = lvlm.seg_head(last_hidden_state[sample, position]).float()
    return nn.functional.mse_loss(given, wanted) / wanted.var()


def teacher_forced_ciou(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    scenes: RefShapes,
    batch_size: int = 32,
    pruning_method: str = "none",
    num_retained_tokens: int | None = None,
) -> float:
    """cIoU at the image's size, un-pruned by default, as a fraction."""
    retained = {"pruning_method": pruning_method, "num_retained_tokens": num_retained_tokens}
    collate, iou = lvlm_collate(processor), CumulativeIoU()
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        batch = collate(samples, np.random.default_rng(start))
        output = model(**{name: batch[name].to(model.device) for name in ASKED}, **retained)
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
