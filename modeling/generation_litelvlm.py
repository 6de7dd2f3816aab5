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
"""Generation from a pruned prompt: what Transformers' [`GenerationMixin`] must know of tokens that were dropped."""

from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationConfig, GenerationMixin
from transformers.utils import ModelOutput

from .outputs_litelvlm import as_counts, repeat_groups
from .prompt_litelvlm import find_token
from .pruning_litelvlm import LayerwisePruner, PruningPlan
from .versions_litelvlm import CACHE_NAME

# What only the mask decoder reads: masks are decoded once, after the answer
_FOR_MASKS = ("sam_pixel_values", "original_sizes", "reshaped_input_sizes")
# What only the first step reads, whose prompt holds the image
_FOR_PROMPT = (
    "image_state",
    "image_sizes",
    "batch_num_images",
    "image_grid_thw",
    "guide_pixel_values",
    "guide_input_ids",
    "guide_attention_mask",
    "token_type_ids",
)
# What has a row for each image, and not for each prompt; of Qwen-VL the patches of all images follow each other
_PER_IMAGE = ("pixel_values", "image_sizes", "image_grid_thw", "guide_pixel_values")

# What an output says of the tokens that were kept
SELECTION = ("retained_indices", "num_retained_tokens", "similarity", "contribution")


class GenerationRecord:
    """What `segment` keeps of a generation: per step the one hidden state that predicts a token, and the selection."""

    def __init__(self) -> None:
        self.hidden_states: list[torch.Tensor] = []
        self.selection: dict[str, torch.Tensor | None] = {}

    def add(self, outputs: ModelOutput) -> None:
        if not self.hidden_states:
            self.selection = {name: outputs.get(name) for name in SELECTION}
        # A copy: a compiled step writes the next one's output into the same memory
        self.hidden_states.append(outputs.last_hidden_state[:, -1].clone())


class LiteLVLMGenerationMixin(GenerationMixin):
    """For models whose `forward` drops tokens of the prompt and returns the mask and positions of those left."""

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        generation_record: GenerationRecord | None = None,
        share_prefix: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in [`GenerationMixin`]; `generation_record` is for `segment` and does not reach `forward`."""
        if cache is not None and past_key_values is not None:
            raise ValueError(f"`cache` and `past_key_values` are both given; this Transformers knows `{CACHE_NAME}`.")
        cache = past_key_values if cache is None else cache
        for name in _FOR_MASKS:
            kwargs.pop(name, None)
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **{CACHE_NAME: cache},
            **kwargs,
        )
        # Transformers counts from 0
        if self.config.first_position and model_inputs.get("position_ids") is not None:
            model_inputs["position_ids"] = model_inputs["position_ids"] + self.config.first_position
        if not kwargs.get("use_cache", True):
            return model_inputs
        if not is_first_iteration:
            for name in _FOR_PROMPT:
                model_inputs.pop(name, None)
            return model_inputs
        if (
            cache is not None
            and int(cache.get_seq_length()) > 0
            and self._is_about_image(input_ids, inputs_embeds, cache, kwargs)
        ):
            unless = "" if self.config.has_external_guide else ", or `pruning_method='none'` in every turn"
            raise ValueError(
                f"`generate` got a prompt with an image and a filled `{CACHE_NAME}`. A pruned prompt has fewer cache "
                "entries than tokens, so a cached conversation cannot be continued; pass the whole conversation with "
                f"its image and without a cache instead{unless}."
            )
        if _has_image(kwargs) or "token_type_ids" in model_inputs:
            # A mask prepared for the whole prompt does not fit the pruned one: the language model makes its own
            model_inputs["attention_mask"] = attention_mask
            model_inputs["share_prefix"] = share_prefix
        return model_inputs

    def _prepare_model_inputs(
        self, inputs: torch.Tensor | None, bos_token_id: torch.Tensor | None, model_kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, str | None, dict[str, Any]]:
        """As in [`GenerationMixin`], with the numbers of images as a tensor, whose rows can be repeated."""
        counts = as_counts(model_kwargs.get("batch_num_images"))
        if counts is not None:
            model_kwargs = model_kwargs | {"batch_num_images": counts}
        return super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """As in [`GenerationMixin`], with a static cache for the tokens that pruning leaves."""
        # Where images have different numbers of tokens, the first's is not known yet
        if _has_image(model_kwargs) and not self.config.has_varying_lengths:
            state = model_kwargs.get("image_state")
            counts = model_kwargs.get("batch_num_images") if state is None else state.batch_num_images
            fewest = 1 if counts is None else int(counts.min())
            max_cache_length -= self._plan(model_kwargs).num_dropped * fewest
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]) -> Any:
        """As in [`GenerationMixin`]; those of Qwen-VL's visual tokens are rows and columns of their image."""
        if not self.config.has_external_guide or not _has_image(model_kwargs):
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        inputs_embeds, input_ids = model_kwargs.get("inputs_embeds"), model_kwargs.get("input_ids", inputs_tensor)
        is_image = find_token(self.config.image_token_id, input_ids, inputs_embeds, self.get_input_embeddings())
        state = model_kwargs.get("image_state")
        grids = model_kwargs.get("image_grid_thw") if state is None else state.image_grid_thw
        return self.model.grid_position_ids(is_image, grids, model_kwargs.get("attention_mask"))

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, **model_kwargs: Any
    ) -> tuple[torch.LongTensor | None, dict[str, Any]]:
        """
        As in [`GenerationMixin`], but several images of a conversation stay together, and of Qwen-VL's there are no
        copies: each serves several prompts in a row.
        """
        kept: dict[str, Any] = {}
        if expand_size > 1:
            counts, position_ids = model_kwargs.get("batch_num_images"), model_kwargs.get("position_ids")
            if counts is not None or self.config.has_external_guide:
                kept = {name: model_kwargs.pop(name) for name in _PER_IMAGE if model_kwargs.get(name) is not None}
            if counts is not None:
                kept = {name: repeat_groups(values, counts.tolist(), expand_size) for name, values in kept.items()}
            if position_ids is not None and position_ids.ndim == 3:  # M-RoPE: samples are the second dimension
                kept["position_ids"] = model_kwargs.pop("position_ids").repeat_interleave(expand_size, dim=1)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, **model_kwargs
        )
        return input_ids, model_kwargs | kept

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        if (record := model_kwargs.get("generation_record")) is not None:
            record.add(outputs)
        if outputs.retained_indices is not None and model_kwargs.get("use_cache", True):
            # Only the tokens that were kept of the prompt are in the cache: mask and positions go on from those
            model_kwargs["attention_mask"] = outputs.attention_mask
            model_kwargs["position_ids"] = outputs.position_ids
            if self.config.first_position and outputs.position_ids is not None:
                model_kwargs["position_ids"] = outputs.position_ids - self.config.first_position
        elif outputs.retained_indices is not None and isinstance(self._plan(model_kwargs).method, LayerwisePruner):
            # Without a cache each step is a prompt again, and is to be pruned like the first: not by its answer. Of a
            # prompt without padding Transformers has no mask; its last token is always kept
            model_kwargs.setdefault("prompt_length", int(outputs.source_positions[0, -1]) + 1)
        token_type_ids = model_kwargs.get("token_type_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if token_type_ids is not None:  # of what is generated: no part of the prefix
            num_new = model_kwargs["token_type_ids"].shape[1] - token_type_ids.shape[1]
            model_kwargs["token_type_ids"] = nn.functional.pad(token_type_ids, (0, num_new), value=1)
        return model_kwargs

    def _is_about_image(
        self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor | None, cache: Cache, kwargs: dict[str, Any]
    ) -> bool:
        """
        Whether a prompt has an image, or is that of a conversation whose pruned image is in the cache already: as the
        cache says, whatever the method of this call. Behind an image of Qwen-VL every token's position is about it.
        """
        if _has_image(kwargs):
            return True
        if self.config.has_external_guide:
            return hasattr(cache, "pruned_prompt")
        is_image = find_token(self.config.image_token_id, input_ids, inputs_embeds, self.get_input_embeddings())
        return hasattr(cache, "pruned_prompt") and bool(is_image.any())

    def _plan(self, model_kwargs: dict[str, Any]) -> PruningPlan:
        chosen = (model_kwargs.get(name) for name in ("num_retained_tokens", "pruning_method"))
        return PruningPlan.resolve(self.config, *chosen)


def _has_image(kwargs: dict[str, Any]) -> bool:
    return kwargs.get("pixel_values") is not None or kwargs.get("image_state") is not None


__all__ = ["SELECTION", "GenerationRecord", "LiteLVLMGenerationMixin"]
