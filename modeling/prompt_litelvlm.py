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
A prompt on its way into the language model: which of its tokens stay, with which mask and which positions.

The placeholders of an image stay in `input_ids` as the LVLM's processor writes them. Pruning keeps K of a sample's N
placeholders, or K of those of each of its images; all that belongs to the others is dropped: ids, attention mask,
labels, position ids. All of it is decided here, by gathers and stable sorts alone, so that shapes depend on no values
and nothing waits for the device.

B = batch, L = sequence length before and R after pruning, I = images, N = patches, K = retained tokens.
"""

from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.utils.import_utils import is_tracing, torch_compilable_check

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from .pruning_litelvlm import PruningMethod, RetainedTokens
from .versions_litelvlm import CACHE_NAME


@dataclass
class Prompt:
    """
    Args:
        input_ids (`torch.LongTensor` of shape `(B, R)`, *optional*): `None` where embeddings are given instead.
        attention_mask (`torch.Tensor` of shape `(B, R)`, *optional*): 0 for padding.
        position_ids (`torch.LongTensor` of shape `(B, R)` or `(3, B, R)`, *optional*): `None` leaves them to the
            language model; three are those of Qwen-VL, in time and by rows and columns of the image.
        is_image (`torch.BoolTensor` of shape `(B, R)`, *optional*): the visual tokens; `None` without an image.
        is_padded (`bool`): whether any token is masked, as far as that is known without a device sync.
        has_gaps (`bool`): whether positions jump, where tokens were dropped between them.
        source_positions (`torch.LongTensor` of shape `(B, R)`, *optional*): each token's position before pruning;
            `None` where nothing was dropped.
        num_images (`list[int]`, *optional*): images of each sample; `None` where each has one.
        token_type_ids (`torch.LongTensor` of shape `(B, R)`, *optional*): 0 for the prefix, whose tokens see each
            other in both directions, of a language model that has one.
    """

    input_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    is_image: torch.Tensor | None = None
    is_padded: bool = False
    has_gaps: bool = False
    source_positions: torch.Tensor | None = None
    num_images: list[int] | None = None
    token_type_ids: torch.Tensor | None = None

    @classmethod
    def build(
        cls,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        is_image: torch.Tensor | None,
        config: LiteLVLMConfig,
        batch_num_images: torch.Tensor | None = None,
    ) -> "Prompt":
        """
        Reads a prompt as `forward` gets it, with the placeholders that [`find_token`] found if there is an image.

        Raises:
            ValueError: a sample does not hold the placeholders of exactly one image, or of as many as
                `batch_num_images` says. Where their numbers differ by the image, [`Prompt.keep`] looks at that.
        """
        if is_image is None:
            return cls(input_ids, attention_mask, position_ids, is_padded=attention_mask is not None)
        check_shape("batch_num_images", batch_num_images, is_image.shape[:1])
        is_right = all_visible = is_image.new_ones(())
        if not config.has_varying_lengths:
            wanted = config.num_patches if batch_num_images is None else config.num_patches * batch_num_images
            is_right = (is_image.sum(dim=-1) == wanted).all()
        if attention_mask is not None:
            all_visible = attention_mask.bool().all()
        message = _wrong_placeholders(config.num_patches, config.image_token_id)
        if is_tracing(is_image) and batch_num_images is None:  # a graph cannot depend on values
            torch_compilable_check(is_right, message)
            return cls(input_ids, attention_mask, position_ids, is_image, attention_mask is not None)
        seen = torch.stack([is_right, all_visible])
        if batch_num_images is not None:
            seen = torch.cat([seen, batch_num_images])
        # The only device sync; keep it before any kernel is launched
        is_right, all_visible, *counts = seen.tolist()
        if not is_right:
            raise ValueError(message)
        num_images = None if batch_num_images is None else counts
        return cls(input_ids, attention_mask, position_ids, is_image, not all_visible, num_images=num_images)

    def keep(self, tokens: RetainedTokens, num_tokens: int | list[int], config: LiteLVLMConfig) -> "Prompt":
        """
        The prompt with the retained visual tokens only.

        Args:
            tokens ([`RetainedTokens`]): which stay, and in which order.
            num_tokens (`int` or `list[int]`): placeholders of every image, or of each.
            config ([`LiteLVLMConfig`]): says which positions the tokens have.

        Raises:
            ValueError: the samples hold other numbers of placeholders, or the mask or the positions are not those of
                this prompt.
        """
        if isinstance(num_tokens, list):
            check_placeholders(self._is_image, _sum_per_sample(num_tokens, self.num_images), config)
        if tokens.indices is None:  # all stay
            return self
        shape = self._is_image.shape
        check_shape("attention_mask", self.attention_mask, shape)
        check_shape("position_ids", self.position_ids, shape, (1, shape[1]), *self._grid_shapes(config))
        check_shape("token_type_ids", self.token_type_ids, shape)
        indices = tokens.indices.to(self._is_image.device)
        source, is_image, is_padding = retained_positions(self._is_image, indices, num_tokens, self.num_images)
        if tokens.is_valid is not None:
            is_missing = torch.zeros_like(is_image).masked_scatter(is_image, ~tokens.is_valid.to(source.device))
            is_padding = is_missing if is_padding is None else is_padding | is_missing
        keeps_positions = config.position_mode == "original"
        attention_mask = None if self.attention_mask is None else self.attention_mask.gather(1, source)
        if attention_mask is None and (is_padding is not None or keeps_positions):
            attention_mask = torch.ones_like(source)
        if is_padding is not None and attention_mask is not None:
            attention_mask = attention_mask.masked_fill(is_padding, 0)
        return Prompt(
            input_ids=None if self.input_ids is None else self.input_ids.gather(1, source),
            attention_mask=attention_mask,
            position_ids=(
                self._original_positions(source, config.first_position)
                if keeps_positions
                else count_visible(attention_mask, config.first_position)
            ),
            is_image=is_image,
            is_padded=self.is_padded or is_padding is not None,
            has_gaps=keeps_positions,
            source_positions=source,
            num_images=self.num_images,
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids.gather(1, source),
        )

    def _original_positions(self, source: torch.Tensor, first: int) -> torch.Tensor:
        """Positions in the un-pruned prompt; without padding those are simply the indices of its tokens."""
        positions = count_visible(self.attention_mask, first) if self.position_ids is None else self.position_ids
        if positions is None:
            return source + first
        axes = positions.shape[:-2]  # none, or three
        return positions.expand(*axes, *source.shape[:1], -1).gather(-1, source.expand(*axes, -1, -1))

    def _grid_shapes(self, config: LiteLVLMConfig) -> list[tuple[int, ...]]:
        return [(3, *self._is_image.shape)] if config.has_external_guide else []

    def scatter(self, inputs_embeds: torch.Tensor, visual_tokens: torch.Tensor) -> torch.Tensor:
        """
        Puts visual tokens in place of their placeholders.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(B, R, hidden_size)`): embeddings of `input_ids`.
            visual_tokens (`torch.Tensor` of shape `(B, K, hidden_size)` or `(tokens, hidden_size)`): in the order of
                samples and placeholders.
        """
        visual_tokens = visual_tokens.to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(self._is_image[..., None].to(inputs_embeds.device), visual_tokens)

    def mask_for_language_model(self, uses_cache: bool) -> torch.Tensor | None:
        """
        The attention mask, or `None` where it says nothing: Transformers would search it for padding, which is a
        device sync. Without a mask and a cache it would take gaps in the positions for several sequences.
        """
        return self.attention_mask if self.is_padded or (self.has_gaps and not uses_cache) else None

    def patches_at(self, source: torch.Tensor, num_patches: int) -> torch.Tensor:
        """The patches `(B, K)` among the tokens at positions `source` of this prompt, `(B, R)`, in their order."""
        num_dropped = self._is_image.shape[1] - source.shape[1]
        visual_first = self._is_image.gather(1, source).int().argsort(dim=-1, descending=True, stable=True)
        patch = (self._is_image.cumsum(dim=-1) - 1).gather(1, source)
        return patch.gather(1, visual_first[:, : num_patches - num_dropped])

    @property
    def _is_image(self) -> torch.Tensor:
        if self.is_image is None:
            raise ValueError("The prompt has no image.")
        return self.is_image


@dataclass
class CachedPrompt:
    """
    What a cache knows of the pruned prompt in it, as its `pruned_prompt`: nothing else tells a later call that it has
    fewer entries than the conversation has tokens.

    Args:
        prompt ([`Prompt`]): as it entered the language model.
        method: by which it was pruned, whatever that of the later call.
    """

    prompt: Prompt
    method: PruningMethod

    def continued_by(self, prompt: Prompt, cache: Cache, batch_size: int, num_tokens: int) -> Prompt:
        """
        The tokens that go on behind this prompt: from its last position and with its padding, where the call does not
        say.

        Args:
            prompt ([`Prompt`]): those tokens as the call has them.
            cache (`Cache`): what holds this prompt, and maybe more behind it.
            batch_size, num_tokens (`int`): their number.

        Raises:
            ValueError: an attention mask that does not count the cached entries, or other samples.
        """
        before, attention_mask, position_ids = self.prompt, prompt.attention_mask, prompt.position_ids
        # So in every step of `generate`, which must not wait for the length of a static cache
        if position_ids is not None and (attention_mask is not None or before.attention_mask is None):
            return prompt
        num_cached = int(cache.get_seq_length())
        if num_cached == 0:  # emptied since
            return prompt
        length = num_cached + num_tokens
        if attention_mask is None and before.attention_mask is not None:
            num_since = length - before.attention_mask.shape[1]
            attention_mask = nn.functional.pad(before.attention_mask, (0, num_since), value=1)
        # For a static cache `generate` makes masks of four dimensions, or one for each kind of attention
        given = tuple(attention_mask.shape) if isinstance(attention_mask, torch.Tensor) else ()
        if len(given) == 2 and given != (batch_size, length):
            raise ValueError(
                f"The attention mask has shape {given}, but {(batch_size, length)} is wanted: a "
                f"pruned `{CACHE_NAME}` has {num_cached} entries, and {num_tokens} tokens come. Give the same samples "
                "and the `attention_mask` of the pruned prompt's output with a 1 for each token since, or none."
            )
        if position_ids is None and before.position_ids is not None:
            num_ahead = before.position_ids[..., -1:] + 1 - before.position_ids.shape[-1]
            position_ids = num_ahead + torch.arange(num_cached, length, device=num_ahead.device)
        return Prompt(prompt.input_ids, attention_mask, position_ids, is_padded=attention_mask is not None)


def find_token(
    token_id: int, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, embedding: nn.Module
) -> torch.Tensor:
    """
    Where a token stands in `input_ids`, or, without them, where its embedding stands in `inputs_embeds`;
    `torch.BoolTensor` of shape `(B, L)`.
    """
    if inputs_embeds is None:
        return input_ids == token_id
    token = torch.full((), token_id, dtype=torch.long, device=inputs_embeds.device)
    return (inputs_embeds == embedding(token)).all(dim=-1)


def retained_positions(
    is_image: torch.Tensor,
    retained: torch.Tensor,
    num_tokens: int | list[int],
    num_images: list[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """
    Which positions of the prompt the language model sees.

    Args:
        is_image (`torch.BoolTensor` of shape `(B, L)`): the placeholders of each sample, those of its images in a row.
        retained (`torch.LongTensor` of shape `(I, K)`): patches in the order for the language model; a token that is
            no single patch (-1) gets the position of the first.
        num_tokens (`int` or `list[int]`): placeholders of every image, or of each.
        num_images (`list[int]`, *optional*): images of each sample; by default one.

    Returns:
        `torch.LongTensor` of shape `(B, R)`: for each token left its position in the prompt, the retained patches of
        each image in their order where its first K placeholders stood; R = L less the fewest placeholders that a
        sample drops. Then which of them are visual tokens; and which are padding, on the left of samples that drop
        more, or `None` if all drop as many.
    """
    (batch_size, length), (number, num_retained) = is_image.shape, retained.shape
    if isinstance(num_tokens, int):
        first = torch.arange(number, device=retained.device) * num_tokens
        num_dropped = [(num_tokens - num_retained) * images for images in num_images or [1]]
    else:
        first = torch.tensor([0, *accumulate(num_tokens[:-1])], device=retained.device)
        num_dropped = _sum_per_sample([tokens - num_retained for tokens in num_tokens], num_images)
    # A stable sort of two values is a partition that keeps the order, without a shape that depends on data
    of_placeholder = is_image.flatten().argsort(descending=True, stable=True)
    taken = of_placeholder[first[:, None] + torch.arange(num_retained, device=retained.device)]
    is_kept = (~is_image).flatten().index_fill(0, taken.flatten(), True).view(batch_size, length)
    source = is_kept.int().argsort(dim=-1, stable=True)[:, min(num_dropped) :]
    is_kept = is_kept.gather(1, source)
    is_image = is_image.gather(1, source) & is_kept
    source = source.masked_scatter(is_image, of_placeholder[first[:, None] + retained.clamp(min=0)] % length)
    return source, is_image, None if min(num_dropped) == max(num_dropped) else ~is_kept


def _sum_per_sample(of_images: list[int], num_images: list[int] | None) -> list[int]:
    """The sum of what the images of each sample have."""
    values = iter(of_images)
    return of_images if num_images is None else [sum(islice(values, number)) for number in num_images]


def count_visible(attention_mask: Any, first: int) -> Any:
    """Position ids `(B, L)` that count the visible tokens of an attention mask from the first; `None` of `None`."""
    return None if attention_mask is None else (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0) + first


def check_placeholders(is_image: torch.Tensor, num_tokens: list[int], config: LiteLVLMConfig) -> None:
    """Raises a `ValueError` if samples, `(B, L)`, do not hold these numbers of placeholders."""
    held, token_id = is_image.sum(dim=-1), config.image_token_id
    counts = torch.as_tensor(num_tokens, device=held.device)

    def message() -> str:
        # CODEPATH: of Qwen-VL's images, of which a sample has one, the grid says how many tokens they have
        if config.has_external_guide:
            return (
                f"`image_grid_thw` gives images of {num_tokens} visual tokens, but the samples hold {held.tolist()} "
                f"image placeholders (id {token_id}); pass the processor's output whole."
            )
        return _wrong_placeholders(num_tokens, token_id)

    torch_compilable_check((held == counts).all(), message)


def _wrong_placeholders(num_tokens: int | list[int], image_token_id: int) -> str:
    which = "each" if isinstance(num_tokens, int) else "all"
    return (
        f"Each sample must hold {num_tokens} image placeholders (id {image_token_id}) for {which} of its images; "
        "`batch_num_images` says how many these are, if not one."
    )


def check_shape(name: str, values: torch.Tensor | None, *allowed: tuple[int, ...]) -> None:
    """Raises ValueError if an argument has another shape: entries of others would be taken, or the error come late."""
    if values is not None and tuple(values.shape) not in (tuple(shape) for shape in allowed):
        shapes = " or ".join(str(tuple(shape)) for shape in allowed)
        raise ValueError(f"`{name}` has shape {tuple(values.shape)}; for these conversations it is to be {shapes}.")


__all__ = [
    "CachedPrompt",
    "Prompt",
    "check_placeholders",
    "check_shape",
    "count_visible",
    "find_token",
    "retained_positions",
]
