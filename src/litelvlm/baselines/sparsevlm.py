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
"""SparseVLM: in three layers, the language model keeps the visual tokens that words about the image attend to."""

from typing import Any

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import register_layerwise_pruner
from .common import gather_rows
from .layerwise import PromptTokens, attention_of_last_tokens, run_in_segments

_LAYERS, _OF_LAYERS = (2, 6, 15), 32
# Published: of 576 visual tokens, how many are left in each of these layers for a budget; nothing and all complete it
_TABLE = {0: (0, 0, 0), 64: (66, 30, 17), 128: (303, 110, 36), 192: (300, 200, 110), 576: (576, 576, 576)}


@register_layerwise_pruner(
    "sparsevlm",
    source='Zhang et al., "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference", '
    "arXiv 2410.04417",
)
def run_sparsevlm(
    language_model: Any,
    is_image: torch.Tensor | None,
    num_retained_tokens: int,
    config: LiteLVLMConfig,
    **inputs: Any,
) -> tuple[Any, torch.Tensor | None]:
    """
    In three layers of the language model, the visual tokens that the words most about the image attend to.

    With V the visual and T the text tokens as they enter the language model, raters are the texts t with
    mean_v softmax_t(V T^T) at least the mean over texts. A visual token's score is the attention that it gets from
    the raters, averaged over raters and heads, in the layer before a cut. Layers 2, 6 and 15 of 32 cut; for 192, 128
    and 64 of 576 tokens to 300, 200, 110; 303, 110, 36; and 66, 30, 17 tokens, as published. Other budgets lie on
    straight lines between these, and other depths are cut at the same shares of their layers, the first at layer 1 or
    later.

    Deviations: pruned tokens are dropped, and not merged into a few that go on, so that the mean over layers, which
    [`average_tokens`] gives, lies a little below K. Tokens keep their position ids and raster order, whatever
    `config.position_mode`, as in the original's later version, whose choice of heads and correction of the position
    bias are left out. Texts are those behind the image: those before it cannot attend to it.

    Arguments, returned values and errors as in [`run_in_segments`]; a language model of fewer than 4 layers is a
    ValueError.
    """
    cuts = sparsevlm_cuts(num_retained_tokens, config)
    num_visual = config.num_patches

    def score(language_model: Any, layer: int, tokens: PromptTokens, prompt: PromptTokens) -> torch.Tensor:
        raters = raters_of(prompt, num_visual)  # [B, M], of the last M tokens, which are never dropped
        attention = attention_of_last_tokens(language_model, layer, tokens, raters.shape[1])  # [B, M, R]
        return (raters.to(attention)[..., None] * attention).sum(dim=1)  # ranks as the mean does

    return run_in_segments(language_model, is_image, cuts, score, num_visual, **inputs)


def raters_of(prompt: PromptTokens, num_visual: int) -> torch.Tensor:
    """
    Which of the texts behind the image are most about it.

    Returns:
        `torch.BoolTensor` of shape `(B, L - N)`, for the last L - N tokens: all texts behind the image are among them.
    """
    num_tokens = prompt.source.shape[1]
    is_behind = prompt.is_image.cumsum(dim=-1) == num_visual
    is_text = (is_behind & ~prompt.is_image & prompt.attention_mask.bool())[:, num_visual:]
    positions = prompt.is_image.int().argsort(dim=-1, descending=True, stable=True)[:, :num_visual]
    hidden_states = prompt.hidden_states.float()
    visual = gather_rows(hidden_states, positions.to(hidden_states.device))
    texts = hidden_states[:, num_visual - num_tokens :]
    affinity = (visual @ texts.transpose(1, 2)).to(is_text.device)  # [B, N, L - N]
    affinity = affinity.masked_fill(~is_text[:, None], torch.finfo(torch.float32).min)
    relevance = affinity.softmax(dim=-1).mean(dim=1)
    # The relevance of all texts sums up to 1. Of texts that are all alike, rounding must not leave none.
    mean = 1 / is_text.sum(dim=-1, keepdim=True).clamp(min=1)
    return is_text & (relevance >= mean.minimum(relevance.amax(dim=-1, keepdim=True)))


def sparsevlm_cuts(num_retained_tokens: int, config: LiteLVLMConfig) -> list[tuple[int, int]]:
    """The layers from which on fewer visual tokens are seen, and how many: `[(layer, count), ...]`."""
    num_layers = config.get_text_config().num_hidden_layers
    if num_layers <= len(_LAYERS):
        raise ValueError(
            f"The language model has {num_layers} layers, but SparseVLM prunes in three of them, with one before: it "
            "needs 4 or more."
        )
    budget = num_retained_tokens * 576 / config.num_patches
    low = max(known for known in _TABLE if known <= budget)
    high = min(known for known in _TABLE if known >= budget)
    way = (budget - low) / (high - low) if high > low else 0
    cuts: list[tuple[int, int]] = []
    for stage, layer in enumerate(_LAYERS):
        previous = cuts[-1][0] if cuts else 0
        scaled = max(round(layer * num_layers / _OF_LAYERS), previous + 1)
        count = _TABLE[low][stage] + way * (_TABLE[high][stage] - _TABLE[low][stage])
        cuts.append((scaled, max(1, round(count * config.num_patches / 576))))
    return cuts


__all__ = ["raters_of", "run_sparsevlm", "sparsevlm_cuts"]
