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
"""What several methods share. Shapes as in [`PruningSignals`]; scores are computed in float32."""

import torch

from ..modeling.pruning_litelvlm import PruningSignals


def vision_attention(
    signals: PruningSignals, layer: int, index: int = 0, num_heads: int | None = None, class_only: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Self-attention of one layer of the vision tower, from its input and its own projections.

    Args:
        signals ([`PruningSignals`]): of a method registered with `vision_layers`.
        layer (`int`): the layer, as it stands in `vision_layers`.
        index (`int`): its index in `vision_layers`.
        num_heads (`int`, *optional*): how many heads the width is divided into, by default the layer's own number.
        class_only (`bool`): whether the class token alone asks, or each patch too.

    Returns:
        `torch.Tensor` of shape `(B, heads, N)`: what the class token's softmax over itself and all patches gives to
        each patch; with `class_only=False` the mean over the class token and all patches. And the patches' keys, shape
        `(B, heads, N, D / heads)`. Both float32.
    """
    layers = signals.vision_tower.encoder.layers
    module = layers[layer % len(layers)]
    hidden_states = module.layer_norm1(signals.layer_inputs[:, index])
    query = module.self_attn.q_proj(hidden_states[:, :1] if class_only else hidden_states)
    key = module.self_attn.k_proj(hidden_states)
    num_heads = module.self_attn.num_heads if num_heads is None else num_heads
    query, key = (states.float().unflatten(-1, (num_heads, -1)).transpose(1, 2) for states in (query, key))
    attention = (query @ key.transpose(2, 3) / key.shape[-1] ** 0.5).softmax(dim=-1)
    return attention.mean(dim=2)[..., 1:], key[:, :, 1:]


def top_indices(scores: torch.Tensor, number: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """
    The indices of the highest scores of each row `(B, N)`, where the mask allows; equal scores by the lowest index.

    Returns:
        `torch.LongTensor` of shape `(B, number)`, in rising order.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :number].sort(dim=-1).values


def gather_rows(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The rows of `values`, shape `(B, N, D)`, that `indices`, shape `(B, K)`, name: `(B, K, D)`."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def unit_rows(values: torch.Tensor) -> torch.Tensor:
    """Rows of length 1, float32: their products are cosines."""
    return torch.nn.functional.normalize(values.float(), dim=-1)


def projected_units(signals: PruningSignals) -> torch.Tensor:
    """The patches as the language model gets them, `(B, N, hidden_size)`, of length 1; float32."""
    # The projector may stand on another device than the vision tower
    return unit_rows(signals.projector(signals.image_features).to(signals.contribution.device))


def farthest_first(
    distance: torch.Tensor, first: torch.Tensor, number: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """
    A greedy cover: from `first` on, always the patch that is farthest from its nearest chosen one.

    Args:
        distance (`torch.Tensor` of shape `(B, N, N)`): between patches.
        first (`torch.LongTensor` of shape `(B, 1)`): the patch chosen first.
        number (`int`): how many to choose.
        mask (`torch.BoolTensor` of shape `(B, N)`, *optional*): which may be chosen.

    Returns:
        `torch.LongTensor` of shape `(B, number)`, in rising order.
    """
    is_taken = torch.zeros_like(distance[:, 0], dtype=torch.bool) if mask is None else ~mask
    chosen, nearest = [first], torch.full_like(distance[:, 0], torch.inf)
    for _ in range(number - 1):
        item = chosen[-1]
        is_taken = is_taken.scatter(1, item, True)
        nearest = nearest.minimum(distance.gather(1, item[..., None].expand(-1, 1, distance.shape[-1]))[:, 0])
        chosen.append(nearest.masked_fill(is_taken, -torch.inf).argmax(dim=-1, keepdim=True))
    return torch.cat(chosen, dim=1).sort(dim=-1).values


def mean_over_texts(values: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
    """The mean of `values`, shape `(B, T, N)`, over the texts that are present: `(B, N)`, float32."""
    present = text_mask[..., None]
    return values.float().where(present, 0).sum(dim=1) / present.sum(dim=1).clamp(min=1)


__all__ = [
    "farthest_first",
    "gather_rows",
    "mean_over_texts",
    "projected_units",
    "top_indices",
    "unit_rows",
    "vision_attention",
]
