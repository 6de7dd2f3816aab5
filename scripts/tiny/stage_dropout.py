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
The stages "dropout" and "masks": with patches missing, out of order and at other positions the language model learns
to give the mask embeddings that it gave for whole images, and then the masks, as those of 7B do. Then it is saved.
"""

import argparse
from copy import deepcopy

import torch
from conversations import lvlm_collate
from loop import load_weights, train
from recipe import IMAGE_SIZE
from samples import small_and_large
from stage_lvlm import WithPointers, teacher_forced_ciou

from litelvlm.data.refshapes import RefShapes
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

WATCHED = {"none": 256, "random": 85}


def train_dropout(options: argparse.Namespace) -> None:
    """From the un-pruned model's mask embeddings alone, without SAM, which halves a step. It needs no guide yet."""
    whole, processor = _with_teacher(options, masks=False)
    _train_with_dropout("dropout", whole, processor, options.seed + 7, WATCHED, options)


def train_masks(options: argparse.Namespace) -> None:
    """From masks too, which say best what is wanted of a mask embedding, with the new guide in its place."""
    whole, processor = _with_teacher(options, masks=True)
    whole.load_state_dict(load_weights(options.output / "dropout"))
    model = whole.lvlm
    guided = LiteLVLMForSegmentation.from_pretrained(options.output / "guide" / "model", dtype=torch.float32)
    model.model.backbone.vision_tower.load_state_dict(guided.model.backbone.vision_tower.state_dict())
    model.model.guide.load_state_dict(guided.model.guide.state_dict())
    model.config.similarity_order = "lowest"
    _train_with_dropout("masks", whole, processor, options.seed + 8, WATCHED | {"litelvlm": 85}, options)
    model.config.position_mode = "consecutive"
    # Half the bytes in the file; the configuration still says float32, in which it is loaded and computes
    halves = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(options.output / "litelvlm-tiny", state_dict=halves)
    processor.save_pretrained(options.output / "litelvlm-tiny")


def _with_teacher(options: argparse.Namespace, masks: bool) -> tuple[WithPointers, LiteLVLMProcessor]:
    finished = options.output / "finish" / "model"
    model = LiteLVLMForSegmentation.from_pretrained(finished, dtype=torch.float32)
    processor = LiteLVLMProcessor.from_pretrained(finished)
    teacher = deepcopy(model).requires_grad_(False)
    for frozen in (model.model.backbone.vision_tower, model.model.guide, model.sam):
        frozen.requires_grad_(False)
    torch.manual_seed(options.seed)
    return WithPointers(model, masks=masks, teacher=teacher), processor


def _train_with_dropout(
    name: str,
    whole: WithPointers,
    processor: LiteLVLMProcessor,
    seed: int,
    watched: dict[str, int],
    options: argparse.Namespace,
) -> None:
    """Trains on small and large objects, and watches the cIoU on two splits, by `{method: budget}`."""
    splits = [RefShapes(split, 64, IMAGE_SIZE, seed=10_000) for split in ("val", "testS")]

    def figures(whole: WithPointers) -> dict[str, float]:
        whole.lvlm.config.position_mode = "consecutive"
        return {
            f"{split.split}_{method}_{budget}": teacher_forced_ciou(
                whole.lvlm, processor, split, pruning_method=method, num_retained_tokens=budget
            )
            for split in splits
            for method, budget in watched.items()
        }

    collate = lvlm_collate(processor, with_dropout=True)
    train(name, whole, small_and_large(seed, max_expressions=6), collate, figures, options)
