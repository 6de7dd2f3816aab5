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
"""Losses that teach the language model where in the image the words of a question are."""

from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.outputs_litelvlm import LiteLVLMSegmentationOutput

# What points, after which layer of the language model, and looks in the next one: the end of each noun phrase, that of
# the expression, and what follows it up to the token that predicts [SEG]
POINTED = {"mention": 2, "resolved": 4, "answer": 5}


class Pointer(nn.Module):
    """Scores of patches, and of "nowhere", for what a token in the language model means; a probe."""

    def __init__(self, width: int, inner: int = 64):
        super().__init__()
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        self.nowhere = nn.Parameter(torch.zeros(inner))

    def forward(self, hidden: torch.Tensor, patches: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """
        Scores `(R, N + 1)`, from `hidden` `(B, L, D)`, `patches` `(B, N, D)`, and `tokens` `(R, 2)`, each of which is
        a sample and a position.
        """
        queries, keys = self.query(hidden).float(), self.key(patches).float()
        scores = torch.cat([queries @ keys.mT, queries @ self.nowhere[:, None]], dim=-1)  # [B, L, N + 1]
        return scores[tokens[:, 0], tokens[:, 1]] * self.nowhere.numel() ** -0.5


def predicting_seg(input_ids: torch.Tensor, seg_token_id: int) -> torch.Tensor:
    """Sample and position of each token that predicts [SEG], `(masks, 2)`."""
    return (input_ids[:, 1:] == seg_token_id).nonzero()


def as_seen(batch: dict[str, Any], output: LiteLVLMSegmentationOutput, config: LiteLVLMConfig) -> dict[str, Any]:
    """
    What a batch is after pruning: `is_patch`, `attention_mask` and `positions` of the R tokens that the language model
    saw, `(B, R)`; `{name}_tokens` and `{name}_patches` with positions among them and distributions over the K patches
    that were kept; `predicting`, `(masks, 2)`, as [`predicting_seg`] of these. What meant patches of which hardly any
    is left is left out.
    """
    is_patch = batch["input_ids"] == config.image_token_id
    predicting = predicting_seg(batch["input_ids"], config.seg_token_id)
    if output.source_positions is None:
        positions = torch.arange(is_patch.shape[1], device=is_patch.device).expand_as(is_patch)
        return batch | {"is_patch": is_patch, "positions": positions, "predicting": predicting}
    source, kept = output.source_positions, output.retained_indices
    counted = torch.arange(source.shape[1], device=source.device).expand_as(source)
    now_at = torch.zeros_like(batch["input_ids"]).scatter_(1, source, counted)
    seen = {"is_patch": is_patch.gather(1, source), "attention_mask": batch["attention_mask"].gather(1, source)}
    # Rotary attention knows differences of positions only
    seen["positions"] = source if config.position_mode == "original" else counted
    seen["predicting"] = torch.stack([predicting[:, 0], now_at[predicting[:, 0], predicting[:, 1]]], dim=-1)
    for name in POINTED:
        (sample, position), patches = batch[f"{name}_tokens"].T, batch[f"{name}_patches"]
        left = torch.cat([patches[:, :-1].gather(1, kept[sample]), patches[:, -1:]], dim=-1)
        mass = left.sum(-1)
        is_left = mass > 0.1
        seen[f"{name}_tokens"] = torch.stack([sample, now_at[sample, position]], dim=-1)[is_left]
        seen[f"{name}_patches"] = (left / mass.clamp(min=0.1)[:, None])[is_left]
    return seen


def looking_loss(
    language_model: nn.Module,
    layer: int,
    hidden: torch.Tensor,
    batch: dict[str, Any],
    tokens: torch.Tensor,
    patches: torch.Tensor,
) -> torch.Tensor:
    """
    Cross-entropy of the attention that tokens pay to patches, with the first head of a layer, computed anew for them
    alone. What points can do so by content; only what looks learns where that is.

    Args:
        language_model: Llama of Transformers.
        layer (`int`): whose attention is meant.
        hidden (`torch.Tensor` of shape `(B, L, D)`): what enters the layer.
        batch: of which `attention_mask`, `positions` and `is_patch` are read, each `(B, L)`.
        tokens (`torch.LongTensor` of shape `(R, 2)`): samples and positions of the tokens that look.
        patches (`torch.Tensor` of shape `(R, N + 1)`): the distribution that each is to look at; those that mean
            "nowhere", the last one, are left out.
    """
    block = language_model.layers[layer]
    normed, is_somewhere = block.input_layernorm(hidden), patches[:, -1] == 0
    (sample, position), patches = tokens[is_somewhere].T, patches[is_somewhere, :-1]
    attention, size = block.self_attn, block.self_attn.head_dim
    keys = nn.functional.linear(normed, attention.k_proj.weight[:size])  # [B, L, size]
    queries = nn.functional.linear(normed, attention.q_proj.weight[:size])
    cos, sin = language_model.rotary_emb(normed, batch["positions"])
    queries, keys = (x[:, 0].float() for x in apply_rotary_pos_emb(queries[:, None], keys[:, None], cos, sin))
    scores = (queries @ keys.mT)[sample, position] * size**-0.5  # [R, L]
    order = torch.arange(hidden.shape[1], device=hidden.device)
    hidden_from = (order > position[:, None]) | (batch["attention_mask"][sample] == 0)
    weights = scores.masked_fill(hidden_from, -torch.inf).log_softmax(-1)
    return -(weights[batch["is_patch"][sample]].view_as(patches) * patches).sum(-1).mean()
