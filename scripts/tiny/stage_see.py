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
"""The stage "see": CLIP's vision tower learns what objects look like before captions are read."""

import argparse

import numpy as np
import torch
from loop import train
from patch_namer import PatchNamer
from recipe import IMAGE_SIZE
from samples import clip_pixels, patch_names
from torch import nn
from transformers import CLIPModel
from untrained import build_tokenizers, untrained_clip

from litelvlm.data.refshapes import RefShapes, Sample


def see_collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    return {"pixel_values": clip_pixels(samples), "names": patch_names(samples)}


class SeeingClip(nn.Module):
    """CLIP and a probe on the patches that the LVLM will see."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.namer = PatchNamer(clip.config.vision_config.hidden_size)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        patches = self.clip.vision_model(batch["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
        return {"loss": self.namer.loss(patches, batch["names"]), **self.namer.accuracies(patches, batch["names"])}


def train_see(options: argparse.Namespace) -> None:
    build_tokenizers(options)
    model = SeeingClip(untrained_clip(options)[0])
    model.compile(dynamic=False)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed, max_expressions=1)
    train("see", model, scenes, see_collate, lambda _: {}, options)
