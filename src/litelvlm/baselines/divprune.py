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
"""DivPrune: patches as far from each other as can be."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector
from .common import farthest_first, projected_units


@register_token_selector(
    "divprune",
    needs_texts=False,
    source='Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", '
    "arXiv 2503.02175",
)
def select_divprune(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    K patches whose smallest distance to each other is as large as a greedy search makes it; in raster order.

    The distance is 1 - cos of the patches behind the projector. The first patch is the one whose nearest other patch
    is farthest; each further one has the largest distance to the nearest that is chosen already.

    Deviations: none known.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    unit = projected_units(signals).detach()
    distance = 1 - unit @ unit.transpose(1, 2)  # [B, N, N]
    is_other = ~torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    if signals.patch_mask is not None:
        is_other = is_other & signals.patch_mask[:, None]
    nearest = distance.masked_fill(~is_other, torch.inf).amin(dim=-1)  # [B, N]
    if signals.patch_mask is not None:
        nearest = nearest.masked_fill(~signals.patch_mask, -torch.inf)
    first = nearest.argmax(dim=-1, keepdim=True)
    return farthest_first(distance, first, num_retained_tokens, signals.patch_mask)


__all__ = ["select_divprune"]
