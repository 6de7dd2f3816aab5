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
"""TRIM: the patches that a text singles out in CLIP's joint space, and the mean of all others."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, RetainedTokens, register_token_selector
from .common import gather_rows, mean_over_texts, top_indices


@register_token_selector(
    "trim",
    source='Song et al., "Less is More: A Simple yet Effective Token Reduction Method for Efficient Multi-modal '
    'LLMs", arXiv 2409.10994',
)
def select_trim(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> RetainedTokens:
    """
    The K - 1 patches of lowest similarity to the text, in raster order, and one token more: the mean of all others.

    With patches z_i and a text e in CLIP's joint space, s_i = <z_i, e> and p = softmax(-s): the released code negates
    the similarity and keeps the largest p, so the LOWEST s. `config.similarity_order="highest"` keeps the highest.

    Deviations: the budget K counts the mean, which the original adds to it; of several texts the similarities are
    averaged; the number is always K, where the original may also take the outliers of p.

    Returns:
        [`RetainedTokens`] with the mean last, at index -1.
    """
    similarity = mean_over_texts(signals.similarity, signals.text_mask)
    scores = similarity if config.similarity_order == "highest" else -similarity
    kept = top_indices(scores, num_retained_tokens - 1, signals.patch_mask)

    is_dropped = torch.ones_like(scores, dtype=torch.bool) if signals.patch_mask is None else signals.patch_mask
    is_dropped = is_dropped.scatter(1, kept, False)
    share = is_dropped / is_dropped.sum(dim=-1, keepdim=True)  # [B, N]
    features = signals.image_features
    mean = (share[:, None] @ features.float()).to(features.dtype)
    return RetainedTokens(
        indices=torch.nn.functional.pad(kept, (0, 1), value=-1),
        features=torch.cat([gather_rows(features, kept), mean], dim=1),
    )


__all__ = ["select_trim"]
