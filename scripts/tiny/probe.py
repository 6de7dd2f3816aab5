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
Tells what the patches of a CLIP of RefShapes know of the objects they are on: a linear probe is fitted to the features
that the language model gets, and the share of the patches that it names rightly is printed for each attribute.

    python scripts/tiny/probe.py [--clip runs/tiny/clip/final]
"""

import argparse

import numpy as np
import torch
from patch_namer import PatchNamer
from recipe import IMAGE_SIZE
from samples import clip_pixels, patch_names
from tqdm import tqdm
from transformers import CLIPVisionModel

from litelvlm import load_tiny
from litelvlm.data.refshapes import RefShapes

EPOCHS, BATCH_SIZE, LEARNING_RATE = 4, 50, 1e-2


@torch.inference_mode()
def features(tower: CLIPVisionModel, scenes: RefShapes) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of layer -2, `(scenes, patches, width)`, and what is to be named there; see [`patch_names`]."""
    patches, names = [], []
    for start in tqdm(range(0, len(scenes), BATCH_SIZE), desc=scenes.split):
        samples = [scenes[i] for i in range(start, min(start + BATCH_SIZE, len(scenes)))]
        patches.append(tower(clip_pixels(samples), output_hidden_states=True).hidden_states[-2][:, 1:])
        names.append(patch_names(samples))
    return torch.cat(patches), torch.cat(names)


def fit(patches: torch.Tensor, names: torch.Tensor) -> PatchNamer:
    """The probe, by Adam; patches are normalised already."""
    namer = PatchNamer(patches.shape[-1])
    optimizer = torch.optim.Adam(namer.parameters(), LEARNING_RATE)
    for _ in range(EPOCHS):
        for part, named in zip(patches.split(BATCH_SIZE), names.split(BATCH_SIZE), strict=True):
            optimizer.zero_grad()
            namer.loss(part, named).backward()
            optimizer.step()
    return namer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", help="folder of a CLIP (default: that of the embedded model)")
    parser.add_argument("--images", type=int, default=1500, help="scenes of train to fit the probe on")
    parser.add_argument("--seed", type=int, default=1234, help="another seed, other scenes")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    if options.clip:
        tower = CLIPVisionModel.from_pretrained(options.clip)
    else:
        tower = load_tiny()[0].model.backbone.vision_tower
    patches, names = features(tower, RefShapes("trainC", options.images, IMAGE_SIZE, options.seed, max_expressions=1))
    # Tensors made for inference cannot be learnt from
    mean, scale = patches.mean((0, 1)).clone(), patches.std((0, 1)).clone()
    namer = fit(((patches - mean) / scale).clone(), names.clone())
    for split in ("val", "testC"):
        patches, names = features(tower, RefShapes(split, 100, IMAGE_SIZE, options.seed))
        found = namer.accuracies((patches - mean) / scale, names)
        print(split, ", ".join(f"{name} {100 * np.round(float(value), 3):.1f} %" for name, value in found.items()))


if __name__ == "__main__":
    main()
