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
"""VisPruner: half of the budget to the patches that the class token attends to, half to those that differ."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, rank, register_token_selector
from .common import gather_rows, unit_rows, vision_attention

_MOST_PER_ROUND = 8


@register_token_selector(
    "vispruner",
    needs_texts=False,
    vision_layers=(-2,),
    source='Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs", '
    "arXiv 2412.01818",
)
def select_vispruner(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    The K // 2 patches of most class attention, and of the rest those that resemble each other least; raster order.

    Attention is the class token's in the last layer but one of the vision tower, averaged over heads. The rest, by
    falling attention, is thinned out in rounds until K - K // 2 are left: its even positions are compared with its odd
    ones, and of the even ones up to 8 with the highest cosine to any odd one are dropped.

    Deviations: after a round the rest is again in the order of attention.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    attention = vision_attention(signals, layer=-2)[0].mean(dim=1)  # [B, N]
    order = attention.argsort(dim=-1, descending=True, stable=True)
    num_important = num_retained_tokens // 2
    important, rest = order[:, :num_important], order[:, num_important:]

    unit = unit_rows(signals.image_features)
    while (excess := rest.shape[1] - (num_retained_tokens - num_important)) > 0:
        even, odd = rest[:, ::2], rest[:, 1::2]
        resemblance = (gather_rows(unit, even) @ gather_rows(unit, odd).transpose(1, 2)).amax(dim=-1)
        num_dropped = min(_MOST_PER_ROUND, excess, even.shape[1])
        is_dropped = rank(resemblance, descending=True) < num_dropped
        # Dropped ones go behind all others, which stay in order
        position = torch.arange(rest.shape[1], device=rest.device).expand_as(rest)
        position = position.scatter_add(1, position[:, ::2], is_dropped * rest.shape[1])
        rest = rest.gather(1, position.argsort(dim=-1)[:, : rest.shape[1] - num_dropped])
    return torch.cat([important, rest], dim=1).sort(dim=-1).values


__all__ = ["select_vispruner"]
