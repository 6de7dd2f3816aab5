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
"""Samples of RefShapes as tensors, and splits of it mixed: pixels, what each patch shows, and where objects are."""

import numpy as np
import torch
from recipe import IMAGE_SIZE, PATCH_SIZE
from torch import nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from litelvlm.data.refshapes import ATTRIBUTES, COLOURS, SHAPES, SIZES, TEXTURES, RefShapes, Sample

ATTRIBUTE_VALUES = dict(zip(ATTRIBUTES, map(tuple, (SIZES, TEXTURES, COLOURS, SHAPES)), strict=True))
CLIP_MEAN, CLIP_STD = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
SAM_MEAN, SAM_STD = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
NOT_JUDGED = -100  # of a patch that an object covers in part, as in PyTorch's cross-entropy


class Mixed:
    """Splits of one seed in turn, as one set."""

    def __init__(self, splits: list[RefShapes]):
        self.splits, self.seed = splits, splits[0].seed

    def __getitem__(self, index: int) -> Sample:
        return self.splits[index % len(self.splits)][index // len(self.splits)]


def small_and_large(seed: int, max_expressions: int) -> Mixed:
    """Cluttered scenes to train with, every other one of many small objects."""
    splits = [
        RefShapes(split, 10**9, IMAGE_SIZE, seed, max_expressions=max_expressions) for split in ("trainC", "trainS")
    ]
    return Mixed(splits)


def images_to_tensor(samples: list[Sample]) -> torch.Tensor:
    """Values from 0 to 1, shape `(batch, 3, size, size)`."""
    return torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float() / 255


def clip_pixels(samples: list[Sample]) -> torch.Tensor:
    """Images as CLIP takes them, shape `(batch, 3, size, size)`."""
    return (images_to_tensor(samples) - CLIP_MEAN) / CLIP_STD


def sam_pixels(samples: list[Sample]) -> torch.Tensor:
    """Images as SAM takes them, shape `(batch, 3, size, size)`."""
    return (images_to_tensor(samples) - SAM_MEAN) / SAM_STD


def patch_names(samples: list[Sample]) -> torch.Tensor:
    """
    For each patch and attribute the index of the value that the object there has, or the number of values where there
    is none, or [`NOT_JUDGED`] where an object covers less than half of the patch; `(batch, patches, attributes)`.
    """
    names = []
    for sample in samples:
        covered, index = covered_shares(sample.object_masks).max(dim=0)
        values = [[known.index(getattr(o, name)) for name, known in ATTRIBUTE_VALUES.items()] for o in sample.objects]
        none = torch.tensor([len(known) for known in ATTRIBUTE_VALUES.values()])
        named = torch.tensor(values)[index].masked_fill(covered[:, None] < 0.5, NOT_JUDGED)
        names.append(named.where(covered[:, None] > 0.1, none))
    return torch.stack(names)


def covered_shares(masks: np.ndarray) -> torch.Tensor:
    """The share of each patch that a mask covers, from bool `(masks, H, W)`: `(masks, patches)`."""
    return nn.functional.avg_pool2d(torch.from_numpy(masks).float()[None], PATCH_SIZE)[0].flatten(1)


def coverage(masks: np.ndarray) -> torch.Tensor:
    """How each mask is distributed over the patches, from bool `(masks, H, W)`: `(masks, patches)`, each of sum 1."""
    shares = covered_shares(masks)
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)
