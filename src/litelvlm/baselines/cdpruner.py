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
"""CDPruner: patches that matter to the text and differ from each other, by a determinantal point process."""

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector
from .common import mean_over_texts, projected_units, unit_rows

# Share of a patch's own variance under which what is left of it after conditioning is rounding of float32, in which
# the features come. The search adds up rounding of its own, so it runs in float64: else a patch would depend on the
# other images of a batch, which change the last digit of the features
_ROUNDING = 1e-5


@register_token_selector(
    "cdpruner",
    source='Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in '
    'MLLMs", arXiv 2506.10967',
)
def select_cdpruner(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    The K patches that a greedy search finds for the largest det(L_S), L_ij = r_i cos(f_i, f_j) r_j; in raster order.

    f_i are the patches behind the projector, and r_i = minmax(-cos(z_i, e)) over the patches, with patch z_i and text
    e in CLIP's joint space: the released code negates the similarity, so patches that resemble the text LEAST are the
    relevant ones. `config.similarity_order="highest"` turns it around.

    Deviations: of several texts the cosines are averaged; a long text is cut at CLIP's 77 tokens, where the original
    averages over its segments; where no further patch adds to the determinant, the lowest indices fill the budget.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.
    """
    cosine = unit_rows(signals.text_embeds) @ unit_rows(signals.patch_embeds).transpose(1, 2)  # [B, T, N]
    relevance = mean_over_texts(cosine, signals.text_mask)
    if config.similarity_order == "lowest":
        relevance = -relevance
    is_patch = torch.ones_like(relevance, dtype=torch.bool) if signals.patch_mask is None else signals.patch_mask
    low = relevance.masked_fill(~is_patch, torch.inf).amin(dim=-1, keepdim=True)
    high = relevance.masked_fill(~is_patch, -torch.inf).amax(dim=-1, keepdim=True)
    relevance = (relevance - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)

    features = relevance[..., None] * projected_units(signals)
    if features.device.type != "mps":  # which has no float64
        features = features.double()
    return greedy_dpp(features @ features.transpose(1, 2), num_retained_tokens, is_patch)


def greedy_dpp(kernel: torch.Tensor, number: int, mask: torch.Tensor) -> torch.Tensor:
    """
    Greedy search for the subset of a given size with the largest determinant, by an incremental Cholesky
    decomposition (Chen et al., "Fast Greedy MAP Inference for Determinantal Point Process", arXiv 1709.05135).

    Args:
        kernel (`torch.Tensor` of shape `(B, N, N)`): float64 or float32, positive semi-definite.
        number (`int`): items to choose.
        mask (`torch.BoolTensor` of shape `(B, N)`): which items may be chosen.

    Returns:
        `torch.LongTensor` of shape `(B, number)`, in rising order.
    """
    kernel = kernel.detach()
    variance = kernel.diagonal(dim1=1, dim2=2)
    # What each item would multiply the determinant by: its variance, given the items chosen so far
    gain = variance.masked_fill(~mask, -torch.inf)
    factors = kernel.new_zeros(kernel.shape[0], 0, kernel.shape[-1])  # rows of the Cholesky factor
    chosen = []
    for _ in range(number):
        # Once the chosen items span all others, what is left is rounding, which must not decide
        usable = gain.where((gain > _ROUNDING * variance) | gain.isneginf(), 0)
        item = usable.argmax(dim=-1, keepdim=True)  # [B, 1]
        chosen.append(item)
        pivot = usable.gather(1, item)
        at_item = item[..., None]
        row = kernel.gather(1, at_item.expand(-1, 1, kernel.shape[-1]))[:, 0]
        explained = (factors.gather(2, at_item.expand(-1, factors.shape[1], 1)) * factors).sum(dim=1)
        factor = ((row - explained) / pivot.clamp(min=torch.finfo(kernel.dtype).tiny).sqrt()).where(pivot > 0, 0)
        factors = torch.cat([factors, factor[:, None]], dim=1)
        gain = (gain - factor**2).scatter(1, item, -torch.inf)
    return torch.cat(chosen, dim=1).sort(dim=-1).values


__all__ = ["greedy_dpp", "select_cdpruner"]
