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
The stage "dropout": with patches missing, out of order and at other positions, and with the new guide in its place,
the language model learns to give the masks that it gives for whole images, as those of 7B do. Then it is saved.
"""

import argparse
from copy import deepcopy

import torch
from conversations import lvlm_collate
from loop import train
from recipe import IMAGE_SIZE
from samples import small_and_large
from stage_lvlm import WithPointers, teacher_forced_ciou

from litelvlm.data.refshapes import RefShapes
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

WATCHED = {"none": 256, "random": 85, "litelvlm": 85}


def train_dropout(options: argparse.Namespace) -> None:
    """On small and large objects. The un-pruned model before this stage tells what mask embeddings are wanted."""
    guided = options.output / "guide" / "model"
    model = LiteLVLMForSegmentation.from_pretrained(guided, dtype=torch.float32)
    processor = LiteLVLMProcessor.from_pretrained(guided)
    teacher = deepcopy(model).requires_grad_(False)
    for frozen in (model.model.backbone.vision_tower, model.model.guide, model.sam):
        frozen.requires_grad_(False)
    torch.manual_seed(options.seed)
    splits = [RefShapes(split, 64, IMAGE_SIZE, seed=10_000) for split in ("val", "testS")]

    def figures(whole: WithPointers) -> dict[str, float]:
        whole.lvlm.config.position_mode = "consecutive"
        return {
            f"{split.split}_{method}_{budget}": teacher_forced_ciou(
                whole.lvlm, processor, split, pruning_method=method, num_retained_tokens=budget
            )
            for split in splits
            for method, budget in WATCHED.items()
        }

    whole = WithPointers(model, masks=True, teacher=teacher)
    scenes = small_and_large(options.seed + 7, max_expressions=6)
    train("dropout", whole, scenes, lvlm_collate(processor, with_dropout=True), figures, options)
    model.config.position_mode = "consecutive"
    # Half the bytes in the file; the configuration still says float32, in which it is loaded and computes
    halves = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(options.output / "litelvlm-tiny", state_dict=halves)
    processor.save_pretrained(options.output / "litelvlm-tiny")
