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
"""CLIP Surgery: the sign of CLIP's similarity mended in the vision tower, so that the highest covers the object."""

import torch
from torch import nn

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.guide_litelvlm import LiteLVLMGuide, boundary_token_ids
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector
from .common import top_indices, unit_rows

_NUM_LAYERS = 6


@register_token_selector(
    "surgery",
    vision_layers=tuple(range(-_NUM_LAYERS, 0)),
    source='Li et al., "A Closer Look at the Explainability of Contrastive Language-Image Pre-training", '
    "arXiv 2304.05653",
)
def select_surgery(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    The K patches of HIGHEST similarity to the text, as CLIP Surgery makes it, in raster order.

    The last 6 layers of the vision tower, as released for 12 layers and for 24, or half of a tower of fewer than 12,
    get a second path that starts from what enters the first of them, x: per layer, norm1 of the layer's own input and
    attention of values with values, softmax(V V^T / sqrt(d)) V, through the layer's output projection, are added; no
    MLP. Behind the last norm and CLIP's projection, patches z and texts e have length 1. With one text the similarity
    is z . (e - e_empty). With several it is m_t = w_t (z . e_t), minus its mean over texts, where w is the softmax
    over texts of twice the class token's cosine on the tower's own path, over its mean.

    `config.similarity_order` is not read: what it reverses is mended here. The path ends behind the last layer, where
    the original's does, even if the language model reads the last but one: CLIP's projection is made for the last.

    Deviations: a patch counts by the text it fits best, as the mean of m_t - mean(m) over texts is 0; e_empty is of
    an empty text alone, where the original averages over templates that are filled with nothing.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.

    Raises:
        ValueError: a guide from OpenCLIP with a vision tower of its own, whose texts this tower's patches cannot meet.
    """
    if not isinstance(signals.guide, LiteLVLMGuide):
        raise ValueError(
            "`surgery` mends CLIP's vision tower of the LVLM and embeds an empty text by ids, but this model's guide "
            "is an OpenCLIP model with a vision tower of its own; choose another method."
        )
    class_token, patches = _surgery_embeds(signals, signals.guide)
    texts, mask = unit_rows(signals.text_embeds), signals.text_mask[..., None]  # [B, T, P], [B, T, 1]
    number = mask.sum(dim=1, keepdim=True)
    similarity = texts @ patches.transpose(1, 2)  # [B, T, N]
    of_one = similarity - _empty_embed(signals, signals.guide) @ patches.transpose(1, 2)
    logits = 2 * texts @ class_token.transpose(1, 2)
    # The weights of the texts that are present sum up to their number
    weighted = logits.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(dim=1) * number * similarity
    of_several = weighted - weighted.where(mask, 0).sum(dim=1, keepdim=True) / number.clamp(min=1)
    scores = of_one.where(number == 1, of_several).masked_fill(~mask, -torch.inf).amax(dim=1)
    return top_indices(scores, num_retained_tokens)


def _surgery_embeds(signals: PruningSignals, guide: LiteLVLMGuide) -> tuple[torch.Tensor, torch.Tensor]:
    """The class token `(B, 1, P)` on the tower's own path and the patches `(B, N, P)` on the second, of length 1."""
    tower = signals.vision_tower
    number = min(_NUM_LAYERS, (len(tower.encoder.layers) + 1) // 2)
    layers, inputs = tower.encoder.layers[-number:], signals.layer_inputs[:, -number:]
    states = inputs[:, 0]
    for layer, entering in zip(layers, inputs.unbind(dim=1), strict=True):
        states = states + _attention_of_values(layer, entering)
    # The class token leaves the last layer on the path that it came on
    class_state = layers[-1](inputs[:, -1], attention_mask=None)[:, :1]
    embeds = guide.visual_projection(tower.post_layernorm(torch.cat([class_state, states[:, 1:]], dim=1)))
    embeds = unit_rows(embeds.to(states.device))
    return embeds[:, :1], embeds[:, 1:]


def _attention_of_values(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """What a layer's self-attention adds to its input, `(B, 1 + N, D)`, with queries and keys replaced by values."""
    attention = layer.self_attn
    value = attention.v_proj(layer.layer_norm1(hidden_states)).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    mixed = nn.functional.scaled_dot_product_attention(value, value, value)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _empty_embed(signals: PruningSignals, guide: LiteLVLMGuide) -> torch.Tensor:
    """The embedding of a text without words, of length 1: `(1, 1, P)`."""
    first, last = boundary_token_ids(guide.text_model.config)
    ids = torch.full((1, 1, 2), last, device=signals.text_embeds.device)
    ids[..., 0] = first  # filled, not copied: a copy would wait for the device
    return unit_rows(guide(ids, torch.ones_like(ids)).to(ids.device))


__all__ = ["select_surgery"]
