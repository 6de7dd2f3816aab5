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
"""
Pruning between layers of the language model, for decoders of Transformers with the parts of a Llama.

The decoder runs in segments of layers: each segment is the decoder itself with fewer layers, so masks, attention
backend and caches stay its own, and between two segments tokens are dropped. What remains keeps its position ids. The
key-value cache has as many entries in each layer as the layer has seen tokens. `torch.compile` breaks its graph
between segments.

B = batch, L = tokens of the prompt, R = tokens that are left, N = visual tokens before pruning.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..modeling.versions_litelvlm import CACHE_NAME
from .common import top_indices


@dataclass
class PromptTokens:
    """
    The tokens of a prompt as they enter a layer.

    Args:
        hidden_states (`torch.Tensor` of shape `(B, R, hidden_size)`): what enters.
        attention_mask (`torch.Tensor` of shape `(B, R)`): 0 for padding.
        position_ids (`torch.LongTensor` of shape `(B, R)`): those in the un-pruned sequence.
        is_image (`torch.BoolTensor` of shape `(B, R)`): the visual tokens.
        source (`torch.LongTensor` of shape `(B, R)`): their positions in the prompt.
    """

    hidden_states: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    is_image: torch.Tensor
    source: torch.Tensor

    def __getitem__(self, tokens: slice) -> "PromptTokens":
        return PromptTokens(**{field.name: getattr(self, field.name)[:, tokens] for field in fields(self)})

    def keep(self, tokens: torch.Tensor) -> "PromptTokens":
        """The tokens of these indices, shape `(B, R)`."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in kept.items():
            at = tokens.to(value.device)
            kept[name] = value.gather(1, at if value.ndim == 2 else at[..., None].expand(-1, -1, value.shape[-1]))
        return PromptTokens(**kept)


Score = Callable[[Any, int, PromptTokens, PromptTokens], torch.Tensor]
"""
`score(language_model, layer, tokens, prompt)`: scores of shape `(B, R)` for the tokens that entered `layer`, of which
those of the visual tokens count; `prompt` are the tokens that entered the language model.
"""


@dataclass
class Stages:
    """
    What later steps need to know of a cache whose layers hold different numbers of tokens; its `stages`.

    Args:
        bounds (`tuple[int, ...]`): the layers where segments begin, and the number of layers.
        prompt_masks (`list[torch.Tensor]`): of each segment the attention mask `(B, R)` of the prompt.
    """

    bounds: tuple[int, ...]
    prompt_masks: list[torch.Tensor]


class _SegmentCache(Cache):
    """The part of a cache that one segment sees: lengths, and with them masks, are those of its layers."""

    def __init__(self, cache: DynamicCache, first: int, last: int):
        super().__init__(layers=cache.layers[first:last])
        self._cache = cache

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        # A layer knows its number in the whole language model
        return self._cache.update(key_states, value_states, layer_idx, *args, **kwargs)


def run_in_segments(
    language_model: Any,
    is_image: torch.Tensor | None,
    cuts: Sequence[tuple[int, int]],
    score: Score,
    num_visual_tokens: int,
    *,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    cache: Cache | None = None,
    past_key_values: Cache | None = None,
    use_cache: bool | None = None,
    prompt_length: int | None = None,
    scores_at: int = -1,
    **kwargs: Any,
) -> tuple[Any, torch.Tensor | None]:
    """
    Runs a language model and drops visual tokens on the way. Padding stands on the left.

    Args:
        language_model: a decoder of Transformers with `layers`, `norm` and `rotary_emb`.
        is_image (`torch.BoolTensor` of shape `(B, L)`): the visual tokens; `None` for the steps after the prompt.
        cuts (sequence of `(layer, count)`): from that layer on, rising and at least 1, `count` visual tokens are left.
        score: gives the score of each token before a cut; the highest stay.
        num_visual_tokens (`int`): N.
        inputs_embeds, attention_mask, position_ids, use_cache, kwargs: as the language model takes them.
        cache, past_key_values: the same thing by the names that Transformers has for it from 5.24 on, and before.
        prompt_length (`int`, *optional*): tokens from this one on were generated without a cache: they are kept, and
            have no part in the scores, so that every step chooses like the first. Default: all tokens are the prompt.
        scores_at (`int`): whose input is scored: -1 the layer before a cut, 0 the first layer behind it.

    Returns:
        The language model's output, and the positions in the prompt, shape `(B, R)`, of its last hidden state;
        `None` for the steps after the prompt.

    Raises:
        ValueError: a cache of a fixed size, hidden states or attentions to be put out, whose lengths would differ, or
            an attention mask that is not 2D.
    """
    for name in ("output_hidden_states", "output_attentions"):
        if kwargs.get(name):
            raise ValueError(
                f"`{name}` is set, but with a pruning method that works inside the language model, layers have "
                "different numbers of tokens; choose another method or leave it away."
            )
    inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "position_ids": position_ids}
    given = past_key_values if cache is None else cache
    if is_image is None:
        if hasattr(given, "stages"):
            return _run_next_tokens(language_model, given, **inputs, **kwargs), None
        # A text without an image
        return language_model(**inputs, **{CACHE_NAME: given}, use_cache=use_cache, **kwargs), None

    batch_size, num_tokens = inputs_embeds.shape[:2]
    if attention_mask is None:
        # Without a mask, gaps in the position ids would be taken for several sequences in one sample
        attention_mask = torch.ones_like(is_image, dtype=torch.long)
    if attention_mask.ndim != 2:
        raise ValueError(f"`attention_mask` has {attention_mask.ndim} dimensions; allowed is (batch, length).")
    source = torch.arange(num_tokens, device=is_image.device).expand(batch_size, -1)
    positions = source if position_ids is None else position_ids.expand(batch_size, -1)
    tokens = prompt = PromptTokens(inputs_embeds, attention_mask, positions, is_image, source)

    num_generated = 0 if prompt_length is None else num_tokens - prompt_length
    counts = dict(cuts)
    # A segment begins wherever scores are computed, as they need what enters that layer
    bounds = sorted({0, *counts, *(layer + scores_at for layer in counts), len(language_model.layers)})
    staged = _new_cache(language_model, given, use_cache, bounds)
    for first, last in pairwise(bounds):
        output = _run_segment(language_model, first, last, staged, tokens, **kwargs)
        if staged is not None:
            staged.stages.prompt_masks.append(tokens.attention_mask)
        entered, tokens = tokens, replace(tokens, hidden_states=output.last_hidden_state)
        if last in counts:
            of_prompt = slice(0, tokens.source.shape[1] - num_generated)
            scored = entered if scores_at < 0 else tokens
            scores = score(language_model, last + scores_at, scored[of_prompt], prompt[: num_tokens - num_generated])
            scores = scores.to(is_image.device).masked_fill(~tokens.is_image[:, of_prompt], torch.inf)
            scores = nn.functional.pad(scores, (0, num_generated), value=torch.inf)
            tokens = tokens.keep(top_indices(scores, num_tokens - num_visual_tokens + counts[last]))
    setattr(output, CACHE_NAME, staged)
    return output, tokens.source


def attention_of_last_tokens(language_model: Any, layer: int, tokens: PromptTokens, number: int) -> torch.Tensor:
    """
    What the last tokens attend to in one layer, whatever attention backend runs it.

    Args:
        language_model: with the parts of a Llama.
        layer (`int`): which layer `tokens` enter.
        tokens ([`PromptTokens`]): R of them.
        number (`int`): how many of the last tokens ask.

    Returns:
        `torch.Tensor` of shape `(B, number, R)`: softmax over the visible tokens, averaged over heads; float32.
    """
    module = language_model.layers[layer]
    attention = module.self_attn
    normed = module.input_layernorm(tokens.hidden_states)
    cos, sin = language_model.rotary_emb(tokens.hidden_states, tokens.position_ids)
    cos, sin = cos.to(normed.device), sin.to(normed.device)

    def rotated(projected: torch.Tensor, last: slice) -> torch.Tensor:
        heads = projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        return apply_rotary_pos_emb(heads, heads, cos[:, last], sin[:, last])[0]

    query = rotated(attention.q_proj(normed[:, -number:]), slice(-number, None))
    key = rotated(attention.k_proj(normed), slice(None))
    query = query.unflatten(1, (key.shape[1], -1))  # several query heads share a key head
    logits = (query @ key[:, :, None].transpose(-1, -2)).float() * attention.scaling  # [B, key heads, q, number, R]

    num_tokens = key.shape[2]
    is_before = torch.ones(number, num_tokens, dtype=torch.bool, device=key.device).tril(num_tokens - number)
    is_visible = is_before & tokens.attention_mask.bool().to(key.device)[:, None]  # [B, number, R]
    # No infinity: a token of padding sees nothing, and must not become NaN
    logits = logits.masked_fill(~is_visible[:, None, None], torch.finfo(torch.float32).min)
    return logits.softmax(dim=-1).mean(dim=(1, 2))


def score_by_last_token(language_model: Any, layer: int, tokens: PromptTokens, prompt: PromptTokens) -> torch.Tensor:
    """A [`Score`]: the attention of the prompt's last token in one layer, averaged over heads."""
    return attention_of_last_tokens(language_model, layer, tokens, 1)[:, 0]


def _run_next_tokens(
    language_model: Any,
    cache: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    """Tokens after the prompt: no more are dropped, and each segment sees what is left of the prompt there."""
    batch_size, num_tokens = inputs_embeds.shape[:2]
    stages: Stages = cache.stages
    seen, prompt_length = cache.get_seq_length(), stages.prompt_masks[0].shape[1]
    if attention_mask is None:
        attention_mask = stages.prompt_masks[0].new_ones(batch_size, seen + num_tokens)
    if position_ids is None:
        position_ids = torch.arange(seen, seen + num_tokens, device=inputs_embeds.device)[None]
    nothing = torch.zeros(batch_size, num_tokens, dtype=torch.bool, device=inputs_embeds.device)
    tokens = PromptTokens(inputs_embeds, attention_mask, position_ids, nothing, nothing)
    for (first, last), prompt_mask in zip(pairwise(stages.bounds), stages.prompt_masks, strict=True):
        mask = torch.cat([prompt_mask, attention_mask[:, prompt_length:]], dim=1)
        output = _run_segment(language_model, first, last, cache, replace(tokens, attention_mask=mask), **kwargs)
        tokens = replace(tokens, hidden_states=output.last_hidden_state)
    setattr(output, CACHE_NAME, cache)
    return output


def _run_segment(
    language_model: Any, first: int, last: int, cache: DynamicCache | None, tokens: PromptTokens, **kwargs: Any
) -> Any:
    """The layers from `first` to `last`, as a language model of their own that shares all of its parts."""
    segment = copy.copy(language_model)
    segment._modules = dict(language_model._modules)
    segment.layers = language_model.layers[first:last]
    if last < len(language_model.layers):
        segment.norm = nn.Identity()
    # Offloading by accelerate leaves a `forward` bound to the whole language model; the parts have their own
    segment.__dict__.pop("forward", None)
    return segment(
        inputs_embeds=tokens.hidden_states,
        attention_mask=tokens.attention_mask,
        position_ids=tokens.position_ids,
        **{CACHE_NAME: None if cache is None else _SegmentCache(cache, first, last)},
        use_cache=cache is not None,
        **kwargs,
    )


def _new_cache(language_model: Any, cache: Any, use_cache: bool | None, bounds: Sequence[int]) -> Any:
    if use_cache is None:
        use_cache = cache is not None or bool(language_model.config.use_cache)
    if not use_cache or (language_model.training and language_model.gradient_checkpointing):
        return None
    if cache is None:
        cache = DynamicCache(config=language_model.config)
    if not isinstance(cache, DynamicCache):
        raise ValueError(
            f"`{CACHE_NAME}` is a {type(cache).__name__}, but a pruning method that works inside the language "
            "model needs layers of different lengths; allowed is a DynamicCache, which is the default."
        )
    while len(cache.layers) < bounds[-1]:
        cache.layers.append(cache.layer_class_to_replicate())
    # On the cache that was handed in, which its owner may go on with
    cache.stages = Stages(tuple(bounds), [])
    return cache


__all__ = ["PromptTokens", "Stages", "attention_of_last_tokens", "run_in_segments", "score_by_last_token"]
