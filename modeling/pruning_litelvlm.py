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
Vision-Language Models" (arXiv 2605.13178): the patches of LOWEST similarity to the text cover the referred object
(similarity-aware), and patches that contribute most to the class token give the context back (context-aware). The
paper and the authors' released code differ in three steps; `config.selection_rule` says which of them is followed.

Every function works on a whole batch, without a loop over samples and without a device sync; ties are broken by the
lowest patch index. B = batch, T = texts per image, N = patches, D = width of the vision tower, P = width of CLIP's
joint space, K = retained tokens.
"""

from collections.abc import Callable, Mapping
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
        contribution (`torch.Tensor` of shape `(B, N)`): contribution of each patch to the class token, by the paper.
        text_mask (`torch.BoolTensor` of shape `(B, T)`): which texts are present.
        cosine_contribution (`torch.Tensor` of shape `(B, N)`, *optional*): the same by the released code.
        patch_mask (`torch.BoolTensor` of shape `(B, N)`, *optional*): which patches may be retained; at least K.
        patch_embeds (`torch.Tensor` of shape `(B, N, P)`, *optional*): the patches in CLIP's joint space.
        text_embeds (`torch.Tensor` of shape `(B, T, P)`, *optional*): the texts in CLIP's joint space.
        image_features (`torch.Tensor` of shape `(B, N, D)`, *optional*): the patches before the projector.
        class_features (`torch.Tensor` of shape `(B, D)`, *optional*): the class token at the same layers.
        layer_inputs (`torch.Tensor` of shape `(B, n, 1 + N, D)`, *optional*): class token and patches as they enter
            the n layers of the vision tower that the method was registered with.
        vision_tower (`nn.Module`, *optional*): the CLIP vision tower, for the projections of those layers.
        projector (`nn.Module`, *optional*): from `image_features` to the language model's width.
        guide (`nn.Module`, *optional*): the text tower, for further texts, and the projection into the joint space.

    A method that was registered without texts finds `similarity`, `text_embeds` and `text_mask` empty (T = 0).
    """

    similarity: torch.Tensor
    contribution: torch.Tensor
    text_mask: torch.Tensor
    # Typed as present: the model gives them to each method that may look at them
    cosine_contribution: torch.Tensor = None  # type: ignore[assignment]
    patch_mask: torch.Tensor | None = None
    patch_embeds: torch.Tensor = None  # type: ignore[assignment]
    text_embeds: torch.Tensor = None  # type: ignore[assignment]
    image_features: torch.Tensor = None  # type: ignore[assignment]
    class_features: torch.Tensor = None  # type: ignore[assignment]
    layer_inputs: torch.Tensor = None  # type: ignore[assignment]
    vision_tower: nn.Module = None  # type: ignore[assignment]
    projector: nn.Module = None  # type: ignore[assignment]
    guide: nn.Module = None  # type: ignore[assignment]

    def contribution_by(self, selection_rule: str) -> torch.Tensor:
        """The contribution `(B, N)` that a rule ranks by."""
        return self.contribution if selection_rule == "paper" else self.cosine_contribution


@dataclass
class RetainedTokens:
    """
    The visual tokens that go on to the projector, K per sample in the order for the language model.

    Args:
        indices (`torch.LongTensor` of shape `(B, K)`, *optional*): the patch of each token; -1 for a token that is no
            single patch, such as the class token or a mean, and for one that is not valid. `None` keeps all tokens.
        features (`torch.Tensor` of shape `(B, K, D)`, *optional*): the tokens' features, where a method merges
            patches; by default those of the patches.
        is_valid (`torch.BoolTensor` of shape `(B, K)`, *optional*): for a method whose number of tokens depends on
            the image, which of the K tokens there are; the others are masked. By default all.
    """

    indices: torch.Tensor | None = None
    features: torch.Tensor | None = None
    is_valid: torch.Tensor | None = None

    def count(self) -> torch.Tensor | None:
        """How many tokens each sample has, `(B,)`; `None` where all are kept."""
        if self.indices is None:
            return None
        is_there = torch.ones_like(self.indices, dtype=torch.bool) if self.is_valid is None else self.is_valid
        return is_there.sum(dim=-1)

    def take(self, image_features: torch.Tensor) -> torch.Tensor:
        """The tokens' features `(B, K, D)`, from those of all patches, `(B, N, D)`."""
        if self.features is not None or self.indices is None:
            return image_features if self.features is None else self.features
        of_patch = self.indices.to(image_features.device)[..., None].expand(-1, -1, image_features.shape[-1])
        return image_features.gather(1, of_patch)


# --- the two kinds of methods, and the registry ----------------------------------------------------------------------


@dataclass(frozen=True)
class TokenSelector:
    """A method that prunes before the language model; see [`register_token_selector`] for the fields."""

    name: str
    function: Callable[[Any, int, LiteLVLMConfig], torch.Tensor | RetainedTokens]
    needs_texts: bool = True
    vision_layers: tuple[int, ...] = ()
    source: str = ""

    def select(
        self, signals: PruningSignals | None, num_retained_tokens: int, config: LiteLVLMConfig
    ) -> RetainedTokens:
        """The tokens that the language model sees; only `"none"` looks at no signals."""
        retained = self.function(signals, num_retained_tokens, config)
        return retained if isinstance(retained, RetainedTokens) else RetainedTokens(retained)


@dataclass(frozen=True)
class LayerwisePruner:
    """A method that prunes between layers of the language model; see [`register_layerwise_pruner`]."""

    name: str
    function: Callable[..., tuple[Any, torch.Tensor | None]]
    source: str = ""

    def run(
        self,
        language_model: nn.Module,
        is_image: torch.Tensor | None,
        num_retained_tokens: int,
        config: LiteLVLMConfig,
        **inputs: Any,
    ) -> tuple[Any, torch.Tensor | None]:
        """The language model's output, and the positions `(B, R)` in the prompt that its last hidden state holds."""
        return self.function(language_model, is_image, num_retained_tokens, config, **inputs)


PruningMethod = TokenSelector | LayerwisePruner
_Function = TypeVar("_Function", bound=Callable[..., Any])


def keep_all(signals: Any, num_retained_tokens: int, config: LiteLVLMConfig) -> RetainedTokens:
    """All tokens as they are, in raster order with their own positions; no signal is computed for it."""
    return RetainedTokens()


KEEP_ALL = TokenSelector("none", keep_all, needs_texts=False)
_REGISTRY: dict[str, PruningMethod] = {"none": KEEP_ALL}


def register_token_selector(
    name: str, *, needs_texts: bool = True, vision_layers: tuple[int, ...] = (), source: str = ""
) -> Callable[[_Function], _Function]:
    """
    Decorator that makes a function available as `pruning_method=name`, to prune before the language model.

    The function is `select(signals, num_retained_tokens, config)`, with [`PruningSignals`], and returns the indices of
    the retained patches, shape `(B, K)`, dtype int64, in the order for the language model, or [`RetainedTokens`].

    Args:
        name (`str`): what users write.
        needs_texts (`bool`): whether the method looks at the texts; without, CLIP's text tower does not run.
        vision_layers (`tuple[int, ...]`): layers of the vision tower, such as -2, whose inputs the method looks at.
        source (`str`): where the method was published, for those who list the methods.

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: _Function) -> _Function:
        _add(TokenSelector(name, function, needs_texts, vision_layers, source))
        return function

    return register


def register_layerwise_pruner(name: str, *, source: str = "") -> Callable[[_Function], _Function]:
    """
    Decorator that makes a function available as `pruning_method=name`, to prune inside the language model.

    The function is `run(language_model, is_image, num_retained_tokens, config, **inputs)` with `is_image` of shape
    `(B, L)`, bool, or `None` for the steps after the prompt, and the language model's own inputs. It runs the language
    model and returns its output, and the positions in the prompt, shape `(B, R)`, of the tokens that its last hidden
    state holds (`None` for the steps after the prompt). Generation without a cache adds an input `prompt_length`:
    tokens from there on are the answer so far.

    Args:
        name (`str`): what users write.
        source (`str`): where the method was published, for those who list the methods.

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: _Function) -> _Function:
        _add(LayerwisePruner(name, function, source))
        return function

    return register


def _add(method: PruningMethod) -> None:
    known = _REGISTRY.get(method.name)
    # A module that is imported again registers its function again
    if known is not None and known.function.__qualname__ != method.function.__qualname__:
        raise ValueError(f"The pruning method {method.name!r} is registered already; choose another name.")
    _REGISTRY[method.name] = method
    PRUNING_METHODS.add(method.name)


def get_pruning_method(name: str) -> PruningMethod:
    """
    The registered method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(f"There is no pruning method {name!r}; allowed are {', '.join(sorted(_REGISTRY))}.")
    return _REGISTRY[name]


def list_pruning_methods(before: bool | None = None) -> list[str]:
    """
    Names that `pruning_method` may take, sorted; `"none"`, which prunes nothing, is left out.

    Args:
        before (`bool`, *optional*): only those that prune before the language model, or only those inside it.
    """
    return [
        name
        for name, method in sorted(_REGISTRY.items())
        if method is not KEEP_ALL and before in (None, isinstance(method, TokenSelector))
    ]


@dataclass(frozen=True)
class PruningPlan:
    """
    What one call does about its visual tokens.

    Args:
        method ([`TokenSelector`] or [`LayerwisePruner`]): `"none"` is a selector that keeps all.
        num_retained_tokens (`int`): the budget K.
        config ([`LiteLVLMConfig`]): the settings that the method reads.
    """

    method: PruningMethod
    num_retained_tokens: int
    config: LiteLVLMConfig

    @classmethod
    def resolve(
        cls, config: LiteLVLMConfig, num_retained_tokens: int | None = None, pruning_method: str | None = None
    ) -> "PruningPlan":
        """The configured plan, with what a call replaces of it; see [`LiteLVLMConfig.resolve_pruning`]."""
        name, budget = config.resolve_pruning(num_retained_tokens, pruning_method)
        return cls(get_pruning_method(name), budget, config)

    @property
    def selector(self) -> TokenSelector:
        """What selects before the language model: all tokens where the method prunes inside it."""
        return self.method if isinstance(self.method, TokenSelector) else KEEP_ALL

    @property
    def num_dropped(self) -> int:
        """Visual tokens that do not enter the language model; of images in crops, at the most."""
        return 0 if self.selector is KEEP_ALL else self.config.num_patches - self.num_retained_tokens

    @property
    def drops_tokens(self) -> bool:
        """Whether any layer of the language model caches fewer tokens than the prompt has."""
        return isinstance(self.method, LayerwisePruner) or self.num_dropped > 0


# --- signals ---------------------------------------------------------------------------------------------------------


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
    Contribution of each patch to the class token in one self-attention layer, over the full width (no heads), as the
    paper has it: a = softmax over patches of q . k_i / sqrt(D), contribution_i = || a_i v_i ||_2.

    Args:
        query (`torch.Tensor` of shape `(B, D)`): the class token's query; of SigLIP that of its pooling head's probe.
        key (`torch.Tensor` of shape `(B, N, D)`): the patches' keys.
        value (`torch.Tensor` of shape `(B, N, D)`): the patches' values.

    Returns:
        `torch.Tensor` of shape `(B, N)`, float32: half precision would round most of a peaked softmax to equal values.
    """
    logits = (key.float() @ query.float()[..., None])[..., 0] / key.shape[-1] ** 0.5
    return logits.softmax(dim=-1) * value.float().norm(dim=-1)


def cosine_class_token_contribution(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """
    As [`class_token_contribution`], as the released code has it: queries and keys are normalised first, so that
    a = softmax of cos(q, k_i) / sqrt(D), which is nearly uniform. Shape `(B, N)`, in the weights' own dtype.
    """
    cosine = nn.functional.cosine_similarity(query[:, None], key, dim=-1)
    attention = (cosine / key.shape[-1] ** 0.5).softmax(dim=-1)
    return (attention[..., None] * value).norm(dim=-1)


def rank(scores: torch.Tensor, descending: bool = False) -> torch.Tensor:
    """Rank of each score along the last dimension, 0 first; equal scores rank by index. Same shape, int64."""
    order = scores.argsort(dim=-1, descending=descending, stable=True)
    # The inverse of a permutation is the order of its entries
    return order.argsort(dim=-1)


# --- the method ------------------------------------------------------------------------------------------------------


def similarity_aware_patches(
    signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig
) -> torch.Tensor:
    """
    The patches that are kept for their low similarity to T texts.

    `selection_rule="paper"`: of one text the K // 2 lowest; of several the intersection of the K lowest of each.
    `"released"`: the union of the K // T lowest of each text. `config.num_context_tokens` sets the context's share of
    K aside first, in place of the paper's half; `config.similarity_order` turns the similarity around.

    Returns:
        `torch.BoolTensor` of shape `(B, N)`, at most K per sample; none without any text.
    """
    num_texts = signals.text_mask.sum(dim=-1)  # [B]
    budget = torch.full_like(num_texts, num_retained_tokens - min(config.num_context_tokens or 0, num_retained_tokens))
    if config.selection_rule == "released":
        tokens_per_text = budget // num_texts.clamp(min=1)
    elif config.num_context_tokens is None:
        tokens_per_text = torch.where(num_texts == 1, budget // 2, budget)
    else:
        tokens_per_text = budget

    similarity, highest = signals.similarity, config.similarity_order == "highest"
    if signals.patch_mask is not None:  # what may not be retained ranks last
        similarity = similarity.masked_fill(~signals.patch_mask[:, None], -torch.inf if highest else torch.inf)
    is_low = rank(similarity, descending=highest) < tokens_per_text[:, None, None]  # [B, T, N]
    is_present = signals.text_mask[..., None]
    if config.selection_rule == "released":
        return (is_low & is_present).any(dim=1)
    return (is_low | ~is_present).all(dim=1) & (num_texts > 0)[:, None]


@register_token_selector(
    "litelvlm",
    source='Lee and Choi, "CLIP Tricks You: Training-free Token Pruning for Efficient Pixel Grounding in Large '
    'Vision-Language Models", arXiv 2605.13178',
)
def select_litelvlm(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    Patches of lowest similarity to the text, then patches by falling contribution to the class token, K in all.

    Returns:
        `torch.LongTensor` of shape `(B, K)`, in the order of `config.token_order`.
    """
    similarity_aware = similarity_aware_patches(signals, num_retained_tokens, config)  # [B, N]
    contribution = signals.contribution_by(config.selection_rule)
    # Falling contribution among the patches that are not similarity-aware, which rank behind all others
    taken = similarity_aware if signals.patch_mask is None else similarity_aware | ~signals.patch_mask
    context_rank = rank(contribution.masked_fill(taken, -torch.inf), descending=True)
    context_aware = context_rank < num_retained_tokens - similarity_aware.sum(dim=-1, keepdim=True)

    num_patches = similarity_aware.shape[-1]
    patch = torch.arange(num_patches, device=similarity_aware.device).expand_as(context_rank)
    in_order = patch if config.token_order == "raster" else context_rank.where(context_aware, num_patches + patch)
    # What is not retained goes behind every retained patch
    in_order = in_order.where(similarity_aware | context_aware, 2 * num_patches)
    return in_order.argsort(dim=-1, stable=True)[:, :num_retained_tokens]


def retained_patches(
    config: LiteLVLMConfig, method: str, inputs: Mapping[str, Any], output: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Which patches of a batch's first image were retained for their similarity, and which for the image's context.

    Args:
        config ([`LiteLVLMConfig`]): the model's; S = `config.num_patches_per_side`.
        method (`str`): the pruning method of the call. Only `"litelvlm"` tells the two apart; what another method
            retains counts as context.
        inputs: the processor's, for the texts that are present.
        output ([`LiteLVLMSegmentationOutput`]): of `segment`, for the same call.

    Returns:
        `tuple[torch.BoolTensor, torch.BoolTensor]`: similarity-aware and context-aware patches, `(S, S)` each, on the
        CPU.

    Raises:
        ValueError: images have different numbers of patches, as in crops, which are no square map.
    """
    if config.has_varying_lengths:
        raise ValueError("The model's images have different numbers of patches, which are no square map to show.")
    side = config.num_patches_per_side
    kept = torch.zeros(side * side, dtype=torch.bool)
    if output.retained_indices is None:
        kept[:] = True
    else:
        retained = output.retained_indices[0].cpu()
        kept[retained[retained >= 0]] = True  # -1 is a token that is no patch's own
    similarity_aware = torch.zeros_like(kept)
    if method == "litelvlm":
        signals = PruningSignals(
            similarity=output.similarity[:1],
            contribution=output.contribution[:1],
            text_mask=inputs["guide_attention_mask"][:1].bool().flatten(2).any(dim=-1),
        )
        similarity_aware = similarity_aware_patches(signals, output.retained_indices.shape[1], config)[0].cpu()
    return (kept & similarity_aware).view(side, side), (kept & ~similarity_aware).view(side, side)


__all__ = [
    "KEEP_ALL",
    "LayerwisePruner",
    "PruningMethod",
    "PruningPlan",
    "PruningSignals",
    "RetainedTokens",
    "TokenSelector",
    "class_token_contribution",
    "cosine_class_token_contribution",
    "get_pruning_method",
    "list_pruning_methods",
    "patch_text_similarity",
    "rank",
    "register_layerwise_pruner",
    "register_token_selector",
    "retained_patches",
    "select_litelvlm",
    "similarity_aware_patches",
]
