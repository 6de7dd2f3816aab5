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
"""A regular grid over the image: what a method must be better than."""

import math

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector


@register_token_selector("uniform", needs_texts=False, source="a baseline")
def select_uniform(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    K patches on a regular grid, the same for every image, in raster order.

    About sqrt(K) rows at equal distances, K spread over them evenly, and in each row columns at equal distances. Of a
    image in crops, where patches lie in no one square, every n / K-th of its n patches in raster order.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    device = signals.contribution.device
    if signals.patch_mask is not None:
        num_patches = signals.patch_mask.sum(dim=-1, keepdim=True)
        steps = torch.arange(num_retained_tokens, device=device)
        nth = (2 * steps + 1) * num_patches // (2 * num_retained_tokens)  # [B, K]
        # The n-th of the patches that there are
        indices = signals.patch_mask.int().argsort(dim=-1, descending=True, stable=True)
        return indices.gather(1, nth)
    batch_size, num_patches = signals.contribution.shape
    grid = torch.tensor(grid_of(math.isqrt(num_patches), num_retained_tokens), device=device)
    return grid.expand(batch_size, -1)


def grid_of(side: int, number: int) -> list[int]:
    """`number` indices on a regular grid in a square of `side` x `side`, in raster order."""
    num_rows = max(round(math.sqrt(number)), math.ceil(number / side))
    indices = []
    for i in range(num_rows):
        row = (2 * i + 1) * side // (2 * num_rows)
        num_columns = (i + 1) * number // num_rows - i * number // num_rows
        indices += [row * side + (2 * j + 1) * side // (2 * num_columns) for j in range(num_columns)]
    return indices


__all__ = ["grid_of", "select_uniform"]
