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
"""HiPrune: patches that a middle layer of the vision tower attends to, their neighbours, and those of a late layer."""

import math

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector
from .common import top_indices, vision_attention

_ANCHOR_SHARE = 0.1


@register_token_selector(
    "hiprune",
    needs_texts=False,
    vision_layers=(9, -2),
    source='Liu et al., "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language '
    'Models", arXiv 2508.00553',
)
def select_hiprune(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    Patches attended to in a middle layer and their four neighbours, the rest by attention in a late layer; raster.

    Attention to a patch is averaged over heads and over all that ask, the class token included. Anchors are the
    round(0.1 K / 5) patches of most attention in layer 9 (of CLIP's 24); with their neighbours above, below, left and
    right they are kept first. The last layer but one ranks the others for what is left of K.

    Deviations: a patch at the end of a row is no neighbour of the first of the next, as it is in the released code; in
    a vision tower of n < 10 layers, layer 9 is 9 modulo n.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    middle, late = (
        vision_attention(signals, layer, index, class_only=False)[0].mean(dim=1) for index, layer in enumerate((9, -2))
    )
    anchors = top_indices(middle, round(num_retained_tokens * _ANCHOR_SHARE / 5))
    side = math.isqrt(middle.shape[-1])
    is_anchor = torch.zeros_like(middle, dtype=torch.bool).scatter(1, anchors, True).unflatten(-1, (side, side))
    padded = torch.nn.functional.pad(is_anchor, (1, 1, 1, 1))
    is_first = is_anchor | padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
    # Attention is at most 1, so these rank before all others
    return top_indices(late + 2 * is_first.flatten(1), num_retained_tokens)


__all__ = ["select_hiprune"]
