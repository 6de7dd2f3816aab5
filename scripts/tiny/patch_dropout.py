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
"""Patches that are missing in training, drawn at random as in PatchDropout (Liu et al., 2022)."""

from typing import Any

import numpy as np
import torch
from recipe import NUM_VISUAL_TOKENS

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.pruning_litelvlm import PruningSignals, register_token_selector

PATCH_DROPOUT = "patch-dropout"
# Batches that keep all tokens, as the model has them without pruning
SHARE_OF_WHOLE_IMAGES = 0.35
# How many tokens the other batches keep
BUDGETS = (170, 128, 85, 57, 40, 28, 20)
SHARE_OUT_OF_ORDER = 0.7
SHARE_OF_ORIGINAL_POSITIONS = 0.3

SIDE = int(NUM_VISUAL_TOKENS**0.5)
_GRID = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 2)


def random_patches(rng: np.random.Generator, num_retained_tokens: int) -> np.ndarray:
    """
    Indices of the patches that stay, int64 of shape `(K,)`: single ones, blobs around a few centres, or half of each,
    in raster order or in any.
    """
    noise = rng.random(NUM_VISUAL_TOKENS)
    centres = rng.integers(SIDE, size=(rng.integers(1, 6), 2))
    distance = ((_GRID[:, None] - centres) ** 2).sum(-1).min(-1)
    in_blobs = {"single": 0, "blobs": num_retained_tokens, "both": num_retained_tokens // 2}
    number = in_blobs[str(rng.choice(list(in_blobs)))]
    # Blobs have uneven edges
    blobs = (distance + 6 * noise).argsort()[:number]
    noise[blobs] = np.inf
    kept = np.concatenate([blobs, noise.argsort()[: num_retained_tokens - number]])
    return rng.permutation(kept) if rng.random() < SHARE_OUT_OF_ORDER else np.sort(kept)


def random_dropout(rng: np.random.Generator, batch_size: int) -> dict[str, Any]:
    """`kept`, int64 of shape `(batch_size, K)`, and `position_mode`; nothing for a batch that keeps all."""
    if rng.random() < SHARE_OF_WHOLE_IMAGES:
        return {}
    budget = int(rng.choice(BUDGETS))
    mode = "original" if rng.random() < SHARE_OF_ORIGINAL_POSITIONS else "consecutive"
    kept = np.stack([random_patches(rng, budget) for _ in range(batch_size)])
    return {"kept": torch.from_numpy(kept), "position_mode": mode}


class PatchDropout:
    """The pruning method of this name: keeps the patches that were drawn with a batch."""

    def __init__(self) -> None:
        self.kept: torch.Tensor | None = None
        register_token_selector(PATCH_DROPOUT, needs_texts=False)(self.select)

    def select(self, signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
        assert self.kept is not None and self.kept.shape[1] == num_retained_tokens
        return self.kept.to(signals.image_features.device)
