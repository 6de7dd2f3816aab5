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
"""Patches drawn at random: what a method must be better than."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, rank, register_token_selector
from .common import top_indices


@register_token_selector("random", source="a baseline")
def select_random(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    K patches drawn at random, in raster order: the image and its texts are the seed, and say no more.

    Each has the same chance. The draw follows from the image and its texts alone: the patch of the highest
    contribution, and for each text the patches of the highest and the lowest similarity, are hashed to a seed, and a
    hash of seed and patch orders the patches. So an image gets the same patches in any batch and process (unless two
    scores are so close that rounding decides which is the highest), no global state of a random generator is touched,
    and another image or another text gets others. To draw again for the same image, rephrase the text.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    contribution, similarity, mask = signals.contribution, signals.similarity, signals.patch_mask
    if mask is not None:
        contribution = contribution.masked_fill(~mask, -torch.inf)
    seed = _hash(_first(contribution))  # [B]
    for sign in (1, -1):
        signed = sign * similarity if mask is None else (sign * similarity).masked_fill(~mask[:, None], -torch.inf)
        of_text = _hash(sign + 2 + 4 * _first(signed))  # [B, T]
        seed = _hash(seed + of_text.where(signals.text_mask, 0).sum(dim=-1))
    patch = torch.arange(contribution.shape[-1], device=contribution.device)
    # Neighbouring patches and related seeds must not be related orders: hence a hash before, and one after
    order = _hash(_hash(patch) ^ seed[:, None])
    return top_indices(rank(order).float().neg(), num_retained_tokens, mask)


def _first(scores: torch.Tensor) -> torch.Tensor:
    """Index of the highest score, the lowest index of several; not `argmax`, which promises none on every device."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., 0]


def _hash(value: torch.Tensor) -> torch.Tensor:
    """An invertible mix of the 32 low bits, by multiplications and shifts (xorshift-multiply); int64, same shape."""
    low = 0xFFFFFFFF
    value = value & low
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = ((value ^ (value >> shift)) * factor) & low
    return value ^ (value >> 16)


__all__ = ["select_random"]
