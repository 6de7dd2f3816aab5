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
Visual token selection as pure tensor functions, and the registry of pruning methods.

The method is that of "CLIP Tricks You: Training-free Token Pruning for Efficient Pixel Grounding in Large
Vision-Language Models" (arXiv 2605.13178): the patches of LOWEST similarity to the text cover the referred object,
and patches that contribute most to the class token give the context back.

Every function works on a whole batch, without a loop over samples and without waiting for the device; ties are
broken by the lowest patch index. B = batch, T = texts per image, N = patches, D = width of the vision tower,
P = width of CLIP's joint space, K = retained tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..configuration.configuration_litelvlm import PRUNING_METHODS, LiteLVLMConfig


@dataclass
class PruningSignals:
    """
    What a pruning method may look at.

    Args:
        similarity (`torch.Tensor` of shape `(B, T, N)`): similarity of each patch to each text.
        contribution (`torch.Tensor` of shape `(B, N)`): contribution of each patch to the class token.
        text_mask (`torch.BoolTensor` of shape `(B, T)`): which texts are present.
        patch_mask (`torch.BoolTensor` of shape `(B, N)`, *optional*): which patches may be retained; at least K.
        patch_embeds (`torch.Tensor` of shape `(B, N, P)`, *optional*): the patches in CLIP's joint space.
        text_embeds (`torch.Tensor` of shape `(B, T, P)`, *optional*): the texts in CLIP's joint space.
        image_features (`torch.Tensor` of shape `(B, N, D)`, *optional*): the patches before the projector.
        class_features (`torch.Tensor` of shape `(B, D)`, *optional*): the class token at the same layers.
        layer_inputs (`torch.Tensor` of shape `(B, n, 1 + N, D)`, *optional*): class token and patches as they enter
            the n layers of the vision tower that the method was registered with.
        vision_tower (`nn.Module`, *optional*): the CLIP vision tower, for the projections of those layers.
        projector (`nn.Module`, *optional*): from `image_features` to the language model's width.

    A method that was registered without texts finds `similarity`, `text_embeds` and `text_mask` empty (T = 0).
    """

    similarity: torch.Tensor
    contribution: torch.Tensor
    text_mask: torch.Tensor
    patch_mask: torch.Tensor | None = None
    patch_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    # Typed as present: the model gives them to each method that may look at them
    image_features: torch.Tensor = None  # type: ignore[assignment]
    class_features: torch.Tensor = None  # type: ignore[assignment]
    layer_inputs: torch.Tensor = None  # type: ignore[assignment]
    vision_tower: nn.Module = None  # type: ignore[assignment]
    projector: nn.Module = None  # type: ignore[assignment]


@dataclass
class RetainedTokens:
    """
    What a pruning method hands to the projector, K tokens per sample in the order for the language model.

    Args:
        indices (`torch.LongTensor` of shape `(B, K)`): the patch of each token; -1 for a token that is no patch's own,
            such as the class token or a mean of others, and for one that is not valid.
        features (`torch.Tensor` of shape `(B, K, D)`, *optional*): the tokens' features, where a method merges
            patches; by default those of the patches.
        is_valid (`torch.BoolTensor` of shape `(B, K)`, *optional*): for a method whose number of tokens depends on
            the image, which of the K tokens there are; the others are masked. By default all.
    """

    indices: torch.Tensor
    features: torch.Tensor | None = None
    is_valid: torch.Tensor | None = None


@dataclass(frozen=True)
class PruningMethod:
    """A registered method; see [`register_pruning_method`] for the fields."""

    name: str
    function: Callable[..., Any]
    needs_texts: bool = True
    vision_layers: tuple[int, ...] = ()
    inside_language_model: bool = False
    source: str = ""


_REGISTRY: dict[str, PruningMethod] = {}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_pruning_method(
    name: str,
    *,
    needs_texts: bool = True,
    vision_layers: tuple[int, ...] = (),
    inside_language_model: bool = False,
    source: str = "",
) -> Callable[[_Function], _Function]:
    """
    Decorator that makes a function available as `pruning_method=name`.

    The function is `method(signals, num_retained_tokens, config)`, with [`PruningSignals`], and returns the indices of
    the retained patches, shape `(B, K)`, dtype int64, in the order for the language model, or [`RetainedTokens`].

    Args:
        name (`str`): what users write.
        needs_texts (`bool`): whether the method looks at the texts; without, CLIP's text tower does not run.
        vision_layers (`tuple[int, ...]`): layers of the vision tower, such as -2, whose inputs the method looks at.
        inside_language_model (`bool`): whether the tokens are pruned between layers of the language model. Then the
            function runs the language model: `method(language_model, is_image, num_retained_tokens, config,
            **language_model_inputs)` with `is_image` of shape `(B, L)`, bool, or `None` for the steps after the
            prompt, and returns the language model's output, and the rows of the prompt, shape `(B, R)`, that its
            last hidden state holds (`None` for the steps after the prompt). Generation without a cache adds an
            input `prompt_length`: rows from there on are the answer so far.
        source (`str`): where the method was published, for those who list the methods.

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: _Function) -> _Function:
        if name == "none" or (name in _REGISTRY and _REGISTRY[name].function.__qualname__ != function.__qualname__):
            raise ValueError(f"The pruning method {name!r} is registered already; choose another name.")
        _REGISTRY[name] = PruningMethod(name, function, needs_texts, vision_layers, inside_language_model, source)
        PRUNING_METHODS.add(name)
        return function

    return register


def get_pruning_method(name: str) -> PruningMethod | None:
    """The registered method of that name, or `None` for `"none"`, which keeps all tokens."""
    return _REGISTRY.get(name)


def select_patches(
    method: PruningMethod, signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig
) -> RetainedTokens:
    """The tokens that the language model sees, chosen by a method that works before it."""
    retained = method.function(signals, num_retained_tokens, config)
    return retained if isinstance(retained, RetainedTokens) else RetainedTokens(retained)


def patch_text_similarity(patch_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
    """
    Similarity of each patch to each text: a plain dot product in CLIP's joint space, in the weights' own dtype.

    Args:
        patch_embeds (`torch.Tensor` of shape `(B, N, P)`): `visual_projection(post_layernorm(hidden state))`.
        text_embeds (`torch.Tensor` of shape `(B, T, P)`): projected [EOS] outputs of the text tower, not normalised.

    Returns:
        `torch.Tensor` of shape `(B, T, N)`.
    """
    return text_embeds @ patch_embeds.transpose(1, 2)


def class_token_contribution(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """
    Contribution of each patch to the class token in one self-attention layer, over the full width (no heads):
    a = softmax over patches of cos(q, k_i) / sqrt(D), contribution_i = || a_i v_i ||_2.

    Args:
        query (`torch.Tensor` of shape `(B, D)`): the class token's query.
        key (`torch.Tensor` of shape `(B, N, D)`): the patches' keys.
        value (`torch.Tensor` of shape `(B, N, D)`): the patches' values.

    Returns:
        `torch.Tensor` of shape `(B, N)`.
    """
    cosine = nn.functional.cosine_similarity(query[:, None], key, dim=-1)
    attention = (cosine / key.shape[-1] ** 0.5).softmax(dim=-1)
    return (attention[..., None] * value).norm(dim=-1)


def rank(scores: torch.Tensor, descending: bool = False) -> torch.Tensor:
    """Rank of each score along the last dimension, 0 first; equal scores rank by index. Same shape, int64."""
    order = scores.argsort(dim=-1, descending=descending, stable=True)
    # The inverse of a permutation is the order of its entries
    return order.argsort(dim=-1)


def similarity_aware_patches(
    signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig
) -> torch.Tensor:
    """
    For each of T texts the K // T patches of lowest similarity, and their union over the texts.

    `config.num_context_tokens` takes a share of K away first; `config.similarity_order` turns the similarity around.

    Returns:
        `torch.BoolTensor` of shape `(B, N)`.
    """
    budget = num_retained_tokens - min(config.num_context_tokens or 0, num_retained_tokens)
    # Without any text no patch is marked, whatever the quotient
    num_texts = signals.text_mask.sum(dim=-1).clamp(min=1)
    tokens_per_text = torch.full_like(num_texts, budget) // num_texts  # [B]
    similarity, highest = signals.similarity, config.similarity_order == "highest"
    if signals.patch_mask is not None:  # what may not be retained ranks last
        similarity = similarity.masked_fill(~signals.patch_mask[:, None], -torch.inf if highest else torch.inf)
    text_rank = rank(similarity, descending=highest)  # [B, T, N]
    return ((text_rank < tokens_per_text[:, None, None]) & signals.text_mask[..., None]).any(dim=1)


@register_pruning_method(
    "litelvlm",
    source='Lee and Choi, "CLIP Tricks You: Training-free Token Pruning for Efficient Pixel Grounding in Large '
    'Vision-Language Models", arXiv 2605.13178',
)
def select_litelvlm(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    Similarity-aware patches first, then patches by falling contribution until K are retained (context-aware).

    Returns:
        `torch.LongTensor` of shape `(B, K)`, in the order of `config.token_order`.
    """
    similarity_aware = similarity_aware_patches(signals, num_retained_tokens, config)  # [B, N]
    # Falling contribution among the patches that are not similarity-aware, which rank behind all others
    taken = similarity_aware if signals.patch_mask is None else similarity_aware | ~signals.patch_mask
    context_rank = rank(signals.contribution.masked_fill(taken, -torch.inf), descending=True)
    context_aware = context_rank < num_retained_tokens - similarity_aware.sum(dim=-1, keepdim=True)

    num_patches = similarity_aware.shape[-1]
    patch = torch.arange(num_patches, device=similarity_aware.device).expand_as(context_rank)
    in_order = patch if config.token_order == "raster" else context_rank.where(context_aware, num_patches + patch)
    # What is not retained goes behind every retained patch
    in_order = in_order.where(similarity_aware | context_aware, 2 * num_patches)
    return in_order.argsort(dim=-1, stable=True)[:, :num_retained_tokens]


__all__ = [
    "PruningMethod",
    "PruningSignals",
    "RetainedTokens",
    "class_token_contribution",
    "get_pruning_method",
    "patch_text_similarity",
    "rank",
    "register_pruning_method",
    "select_litelvlm",
    "select_patches",
    "similarity_aware_patches",
]
