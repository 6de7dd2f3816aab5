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
Prefix caching within a call: what several prompts about an image have in common, up to the image's end, passes the
language model once. Of prompts of four tokens, of which the first begins behind padding (`.`), the words (`w`) and the
image (`I`) are read once, and what follows, a question each (`q`), behind them:

    as given       as read
    . w I q        w I . q
    w I q q        w I q q

B = batch, b = images or conversations, each of which serves B / b prompts in a row, R = tokens of a prompt, P = those
that are shared.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.utils.import_utils import is_tracing

from .prompt_litelvlm import Prompt
from .versions_litelvlm import CACHE_NAME, CACHE_NAMES, cache_of


def can_share_prefix(text_config: PreTrainedConfig, **kwargs: Any) -> bool:
    """
    Whether a language model may read prompts in two parts: each token sees those before it alone, whose keys and
    values stay as they are, in a cache that is empty; and no states but the last are asked for.

    Args:
        text_config: the language model's own.
        kwargs: its further arguments.
    """
    cache = cache_of(kwargs)
    asks_for_more = any(
        kwargs.get(name) or getattr(text_config, name, False) for name in ("output_attentions", "output_hidden_states")
    )
    rope = getattr(text_config, "rope_parameters", None) or {}  # one, or one for each kind of layer
    rope_types = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    return (
        not asks_for_more
        and (cache is None or int(cache.get_seq_length()) == 0)
        # Neither sliding windows nor recurrent states
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=text_config).layers)
        # Frequencies that depend on the length of what is read
        and rope_types.isdisjoint({"dynamic", "longrope"})
        and not getattr(text_config, "use_bidirectional_attention", False)
    )


@dataclass
class SharedPrefix:
    """
    Args:
        length (`int`): P.
        num_prompts (`int`): B / b, the prompts that share it.
        attention_mask (`torch.Tensor` of shape `(B, R)`, *optional*): of the prompts; `None` without padding.
        position_ids (`torch.LongTensor` of shape `(B, R)` or `(3, B, R)`): of the prompts.
        destinations (`torch.LongTensor` of shape `(B, R)`): where each token goes as the prompts are read.
    """

    length: int
    num_prompts: int
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor
    destinations: torch.Tensor

    @classmethod
    def find(cls, prompt: Prompt, num_prompts: int) -> "SharedPrefix | None":
        """
        What the prompts about each image have in common, or `None` where they differ before its end, and in a graph,
        which cannot depend on that.

        Args:
            prompt ([`Prompt`]): as it enters the language model. Prompts about an image whose ids, mask, positions and
                patches are equal are taken to have equal embeddings, those of the first.
            num_prompts (`int`): B / b.
        """
        ids, is_image, source = prompt.input_ids, prompt.is_image, prompt.source_positions
        if ids is None or is_image is None or is_tracing(ids):
            return None
        mask = torch.ones_like(ids) if prompt.attention_mask is None else prompt.attention_mask.to(ids.dtype)
        if mask.shape != ids.shape:  # one of pairs of tokens, of a caller's own
            return None
        column = torch.arange(ids.shape[1], device=ids.device)
        position_ids = column[None] if prompt.position_ids is None else prompt.position_ids
        position_ids = position_ids.expand(*position_ids.shape[:-2], *ids.shape)

        # Where each prompt begins, behind its padding, and where its image ends
        begin = (mask.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
        end = (is_image * (column + 1)).amax(dim=-1, keepdim=True)
        length = min(int((end - begin).min()), len(column) - 1)  # something is left to read
        if length <= 0:
            return None
        values = [ids, mask, *position_ids.view(-1, *ids.shape)]
        if source is not None:  # that of equal patches, wherever the prompt begins
            values.append(source - source.gather(1, begin))
        prefixes = torch.stack([value.gather(1, begin + column[:length]) for value in values])
        of_first = prefixes[:, ::num_prompts].repeat_interleave(num_prompts, dim=1)
        if not torch.equal(prefixes, of_first):
            return None

        is_padding, is_shared = column < begin, (column >= begin) & (column < begin + length)
        destinations = torch.where(is_padding, column + length, column)
        destinations = torch.where(is_shared, column - begin, destinations)
        return cls(length, num_prompts, mask if prompt.is_padded else None, position_ids, destinations)

    def run(self, language_model: nn.Module, inputs_embeds: torch.Tensor, **kwargs: Any) -> Any:
        """
        The language model's output for the prompts, and its cache, as if each had been read whole; only what stands at
        padding differs.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(B, R, hidden_size)`): of the prompts, with their visual tokens.
            kwargs: further arguments of the language model, such as an empty cache; by default it is a new one.
        """
        columns = self.destinations.argsort(dim=-1)
        embeds = inputs_embeds.take_along_dim(columns.to(inputs_embeds.device)[..., None], dim=1)
        position_ids = self.position_ids.take_along_dim(columns.expand_as(self.position_ids), dim=-1)
        mask = None if self.attention_mask is None else self.attention_mask.gather(1, columns)

        cache, read = cache_of(kwargs), DynamicCache(config=language_model.config)
        options = {name: value for name, value in kwargs.items() if name not in CACHE_NAMES} | {CACHE_NAME: read}
        firsts = slice(None, None, self.num_prompts)
        prefix = language_model(
            inputs_embeds=embeds[firsts, : self.length],
            attention_mask=None if mask is None else mask[firsts, : self.length],
            position_ids=position_ids[..., firsts, : self.length],
            **options,
        )
        read.batch_repeat_interleave(self.num_prompts)
        outputs = language_model(
            inputs_embeds=embeds[:, self.length :],
            attention_mask=mask,
            position_ids=position_ids[..., self.length :],
            **options,
        )
        states = prefix.last_hidden_state.repeat_interleave(self.num_prompts, dim=0)
        states = torch.cat([states, outputs.last_hidden_state], dim=1)
        # In the order in which the prompts are given, as later calls and users know them
        cache = DynamicCache(config=language_model.config) if cache is None else cache
        for index in range(len(read)):
            layer = read.layers.pop(0)  # each is freed when it is copied
            order = self.destinations.to(layer.keys.device)[:, None, :, None]
            cache.update(layer.keys.take_along_dim(order, dim=2), layer.values.take_along_dim(order, dim=2), index)
        order = self.destinations.to(states.device)[..., None]
        outputs.last_hidden_state, outputs[CACHE_NAME] = states.take_along_dim(order, dim=1), cache
        return outputs


__all__ = ["SharedPrefix", "can_share_prefix"]
