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
"""LLaVA-PruMerge: the patches that the class token attends to, each merged with the dropped ones that resemble it."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, RetainedTokens, register_token_selector
from .common import gather_rows, unit_rows, vision_attention

_SOURCE = (
    'Shang et al., "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", arXiv 2403.15388'
)
_NUM_NEIGHBOURS = 32


@register_token_selector("prumerge", needs_texts=False, vision_layers=(-1,), source=_SOURCE)
def select_prumerge(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> RetainedTokens:
    """
    The K - 1 patches of most class attention, each merged with dropped ones that resemble it, and the sum of those.

    In the last layer of the vision tower, over its full width D and without heads, a = softmax(q_class k^T / sqrt(D)).
    To the features x_i of each kept patch, a_j x_j of the 32 dropped patches j with the most similar keys (by cosine)
    are added; the last token is the sum of a_j x_j over all dropped patches. Kept patches are ordered by falling a, as
    in the original.

    Deviations: the number is K with the last token counted in, where the original counts outliers of a (that is
    "prumerge-adaptive"); the spread-out patches that "PruMerge+" adds are left out.

    Returns:
        [`RetainedTokens`] with the sum last, at index -1.
    """
    return _prune_and_merge(signals, num_retained_tokens, adaptive=False)


@register_token_selector("prumerge-adaptive", needs_texts=False, vision_layers=(-1,), source=_SOURCE)
def select_prumerge_adaptive(
    signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig
) -> RetainedTokens:
    """
    As prumerge, with as many patches as stand out by their class attention, K - 1 at the most.

    A patch stands out if a_i > Q3 + 1.5 (Q3 - Q1), with the quartiles of a over the image's patches. Images of a
    batch have different numbers, so all have K tokens, of which those that are too many are masked.

    Deviation: the original has no upper limit; K is one, so that batches are rectangular.

    Returns:
        [`RetainedTokens`] with the sum last, at index -1, and `is_valid`.
    """
    return _prune_and_merge(signals, num_retained_tokens, adaptive=True)


def _prune_and_merge(signals: PruningSignals, num_retained_tokens: int, adaptive: bool) -> RetainedTokens:
    attention, key = (values[:, 0] for values in vision_attention(signals, layer=-1, num_heads=1))  # [B, N], [B, N, D]
    num_kept = torch.full_like(attention[:, :1], num_retained_tokens - 1, dtype=torch.long)
    if adaptive:
        first, third = attention.quantile(attention.new_tensor([0.25, 0.75]), dim=-1, keepdim=True)
        num_outliers = (attention > third + 1.5 * (third - first)).sum(dim=-1, keepdim=True)
        num_kept = num_outliers.minimum(num_kept)

    kept = attention.argsort(dim=-1, descending=True, stable=True)[:, : num_retained_tokens - 1]
    is_valid = torch.arange(num_retained_tokens - 1, device=kept.device) < num_kept  # [B, K - 1]
    is_dropped = torch.ones_like(attention, dtype=torch.bool).scatter(1, kept, ~is_valid)

    unit_key = unit_rows(key)
    resemblance = gather_rows(unit_key, kept) @ unit_key.transpose(1, 2)  # [B, K - 1, N]
    resemblance = resemblance.masked_fill(~is_dropped[:, None], -torch.inf)
    nearest = resemblance.argsort(dim=-1, descending=True, stable=True)[..., :_NUM_NEIGHBOURS]
    is_near = torch.zeros_like(resemblance, dtype=torch.bool).scatter(2, nearest, True)

    weights = attention.where(is_dropped, 0)[:, None]  # [B, 1, N]
    weights = torch.cat([weights.where(is_near, 0), weights], dim=1)  # [B, K, N]
    features = signals.image_features
    merged = (weights @ features.float()).to(features.dtype)
    own = torch.nn.functional.pad(gather_rows(features, kept), (0, 0, 0, 1))
    pad = torch.nn.functional.pad
    return RetainedTokens(
        indices=pad(kept.where(is_valid, -1), (0, 1), value=-1),
        features=own + merged,
        is_valid=pad(is_valid, (0, 1), value=True) if adaptive else None,
    )


__all__ = ["select_prumerge", "select_prumerge_adaptive"]
