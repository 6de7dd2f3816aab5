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
"""What PaliGemma's language model is given beside embeddings: positions from 1, and masks with its prefix."""

from typing import Any

import torch
from transformers import Cache, PaliGemmaForConditionalGeneration, PreTrainedConfig

from .prompt_litelvlm import Prompt
from .versions_litelvlm import CACHE_NAME


def add_prefix(
    inputs: dict[str, Any], prompt: Prompt, cache: Cache | None, first_position: int, text_config: PreTrainedConfig
) -> dict[str, Any]:
    """
    Inputs of a language model as PaliGemma gives them to its own.

    Args:
        inputs (`dict`): with `inputs_embeds` `(B, R, hidden_size)`, `attention_mask` and `position_ids`, each of shape
            `(B, R)` or `None`.
        prompt ([`Prompt`]): whose `token_type_ids` tell which tokens see each other in both directions; without them
            all tokens see those before them only, as there.
        cache (`Cache`, *optional*): what the prompt goes into, or goes on from.
        first_position (`int`): id of a prompt's first position.
        text_config: the language model's own, which says by what attention it runs.

    Raises:
        ValueError: a prefix for flash attention, which would read it in one direction without a word.
    """
    embeds, position_ids = inputs["inputs_embeds"], inputs["position_ids"]
    if position_ids is None:
        num_cached = 0 if cache is None else cache.get_seq_length()
        position_ids = torch.arange(embeds.shape[1], device=embeds.device)[None] + num_cached + first_position
    inputs = inputs | {"position_ids": position_ids}
    begins = prompt.is_image is not None or cache is None or not cache.is_initialized
    if prompt.token_type_ids is None or not begins:
        return inputs
    attention = str(text_config._attn_implementation)
    if "flash" in attention:
        raise ValueError(
            f"`attn_implementation` is {attention!r}, which knows no mask, so that it cannot read a prompt in both "
            "directions; load the model with 'sdpa' or 'eager'."
        )
    attention_mask = PaliGemmaForConditionalGeneration.create_masks_for_generate(
        config=text_config,
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"],
        position_ids=position_ids,
        token_type_ids=prompt.token_type_ids.to(embeds.device),
        **{CACHE_NAME: cache},
    )
    return inputs | {"attention_mask": attention_mask}


__all__ = ["add_prefix"]
