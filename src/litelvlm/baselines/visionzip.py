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
"""VisionZip: the tokens that the class token attends to, and the others merged into a few."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, RetainedTokens, register_token_selector
from .common import gather_rows, top_indices, unit_rows, vision_attention


@register_token_selector(
    "visionzip",
    needs_texts=False,
    vision_layers=(-2,),
    source='Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", arXiv 2412.04467',
)
def select_visionzip(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> RetainedTokens:
    """
    The class token and the patches that it attends to most (dominant), and the others merged into a few (contextual).

    In the last layer but one of the vision tower, patches are ranked by the class token's attention, summed over
    heads. Of the rest, every n-th in raster order is a target; every other joins the target whose key, averaged over
    heads, is nearest by cosine, and a contextual token is the target's features plus the mean of those that joined it.
    5/32 of K are contextual, which are the published 30 of 192, 20 of 128 and 10 of 64. Order: class token, dominant
    patches in raster order, contextual tokens in raster order of their targets.

    Deviations: none known. The class token, which belongs to the dominant ones, counts towards K as in the original;
    a contextual token is reported under the index of its target.

    Returns:
        [`RetainedTokens`] with the class token first, at index -1.
    """
    attention, key = vision_attention(signals, layer=-2)
    attention, key = attention.sum(dim=1), unit_rows(key.mean(dim=1))  # [B, N], [B, N, D / heads]
    num_patches = attention.shape[-1]
    num_contextual = (5 * num_retained_tokens + 16) // 32  # rounded
    num_dominant = num_retained_tokens - num_contextual - 1
    dominant = top_indices(attention, num_dominant)

    is_rest = torch.ones_like(attention).scatter(1, dominant, 0)
    rest = top_indices(is_rest, num_patches - num_dominant)
    step = rest.shape[1] // max(num_contextual, 1)
    targets = rest[:, : step * num_contextual : step]  # [B, num_contextual]

    features = signals.image_features
    tokens = [signals.class_features[:, None], gather_rows(features, dominant)]
    if num_contextual:
        joins = (key @ gather_rows(key, targets).transpose(1, 2)).argmax(dim=-1, keepdim=True)  # [B, N, 1]
        is_free = is_rest.scatter(1, targets, 0)
        weights = torch.zeros_like(is_free[..., None].expand(-1, -1, num_contextual))
        weights = weights.scatter(2, joins, is_free[..., None]).transpose(1, 2)  # [B, num_contextual, N]
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)
        tokens.append(gather_rows(features, targets) + (weights @ features.float()).to(features.dtype))
    indices = torch.nn.functional.pad(torch.cat([dominant, targets], dim=1), (1, 0), value=-1)
    return RetainedTokens(indices=indices, features=torch.cat(tokens, dim=1))


__all__ = ["select_visionzip"]
