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
The model without its language model, which another engine runs: [`encode`] makes its prompts of images and texts, and
[`decode`] makes masks of its hidden states. `litelvlm export` writes the language model for that engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from ..modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation
from ..modeling.outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState, LiteLVLMSegmentationOutput
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.prompt_litelvlm import Prompt
from ..modeling.pruning_litelvlm import LayerwisePruner, PruningPlan


@dataclass
class EnginePrompts:
    """
    B prompts as a language model gets them: the image's placeholders are its retained visual tokens.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(B, R, hidden_size)`): texts and visual tokens, padded on the left.
        attention_mask (`torch.LongTensor` of shape `(B, R)`): 0 for padding. Positions count what it shows, from 0.
        input_ids (`torch.LongTensor` of shape `(B, R)`): the same prompts as token ids, a placeholder for each visual
            token.
        is_image (`torch.BoolTensor` of shape `(B, R)`): the visual tokens.
        image_state ([`LiteLVLMImageState`]): of the b images, for [`decode`].
        inputs ([`BatchFeature`]): what the processor made, for its `post_process_instance_segmentation`.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    input_ids: torch.Tensor
    is_image: torch.Tensor
    image_state: LiteLVLMImageState
    inputs: BatchFeature

    @property
    def prompt_embeds(self) -> list[torch.Tensor]:
        """Each prompt by itself, without padding: B tensors `(R, hidden_size)`."""
        return self._of_each(self.inputs_embeds, self.attention_mask.bool())

    @property
    def visual_tokens(self) -> list[torch.Tensor]:
        """The visual tokens of each prompt alone, in their order: B tensors `(K, hidden_size)`."""
        return self._of_each(self.inputs_embeds, self.is_image)

    @property
    def prompt_ids(self) -> list[list[int]]:
        """Each prompt as token ids with one placeholder for all its visual tokens, for engines that are given both."""
        is_first = self.is_image & (self.is_image.cumsum(dim=-1) == 1)
        stays = self.attention_mask.bool() & (~self.is_image | is_first)
        return [ids.tolist() for ids in self._of_each(self.input_ids, stays)]

    @staticmethod
    def _of_each(values: torch.Tensor, chosen: torch.Tensor) -> list[torch.Tensor]:
        return [row[mask.to(row.device)] for row, mask in zip(values, chosen, strict=True)]


@torch.no_grad()
def encode(
    model: LiteLVLMForConditionalGeneration,
    processor: LiteLVLMProcessor,
    images: Any,
    texts: Any,
    *,
    num_retained_tokens: int | None = None,
    pruning_method: str | None = None,
) -> EnginePrompts:
    """
    All that comes before the language model: CLIP, the selection of visual tokens, the projector, and SAM's image
    encoder where there is one.

    Args:
        model: with any backbone, with masks or without.
        processor: of the model.
        images: as the processor takes them.
        texts: as the processor takes `text`.
        num_retained_tokens (`int`, *optional*): replaces the configured budget.
        pruning_method (`str`, *optional*): replaces the configured method.

    Raises:
        ValueError: no images, several in a conversation, a method that prunes inside the language model, or
            `position_mode="original"` where tokens are pruned: an engine numbers the tokens that it is given one by
            one.
    """
    config = model.config
    plan = PruningPlan.resolve(config, num_retained_tokens, pruning_method)
    if isinstance(plan.method, LayerwisePruner):
        raise ValueError(
            f"`pruning_method` is {plan.method.name!r}, which prunes inside the language model, but another engine "
            "runs that; choose a method that prunes before it, or 'none'."
        )
    if config.has_external_guide:
        raise ValueError(
            f"The backbone is a {config.backbone_config.model_type!r}, whose visual tokens have rows and columns, but "
            "another engine numbers the tokens that it is given one by one."
        )
    if config.position_mode == "original" and plan.drops_tokens:
        raise ValueError(
            "`position_mode` is 'original', but another engine numbers the tokens that are left one by one; set "
            "`model.config.position_mode = 'consecutive'`."
        )
    if images is None:
        raise ValueError("`images` is None, so there is nothing to encode; give the engine the texts themselves.")
    inputs = processor(images=images, text=texts).to(model.device)
    if "batch_num_images" in inputs:
        raise ValueError(
            f"The conversations hold {inputs['batch_num_images'].tolist()} images; allowed is one each, whose visual "
            "tokens another engine is given."
        )
    pixels = {name: inputs[name] for name in IMAGE_INPUTS if name in inputs}
    image_state = model.encode_image(**pixels, pruning_method=pruning_method)

    input_ids, guide_mask = inputs["input_ids"], inputs["guide_attention_mask"]
    state = image_state.without_sam().repeat_for(len(input_ids))
    prompt = Prompt.build(input_ids, inputs["attention_mask"], None, input_ids == config.image_token_id, config)
    tokens, _ = model.model.select_tokens(state, inputs["guide_input_ids"], guide_mask, plan)
    kept: Any = prompt.keep(tokens, state.num_tokens(), config)  # of which nothing is None here
    embeds = model.get_input_embeddings()(kept.input_ids)
    return EnginePrompts(
        inputs_embeds=kept.scatter(embeds, model.model.project(state, tokens)),
        attention_mask=kept.attention_mask,
        input_ids=kept.input_ids,
        # Some methods keep fewer tokens of one image than of another
        is_image=kept.is_image & kept.attention_mask.bool(),
        image_state=image_state,
        inputs=inputs,
    )


@torch.no_grad()
def decode(
    model: LiteLVLMForSegmentation,
    prompts: EnginePrompts,
    answers: Sequence[Any],
    hidden_states: Sequence[Any],
) -> LiteLVLMSegmentationOutput:
    """
    A mask for each [SEG] that the language model has answered.

    Args:
        model: that made the prompts.
        prompts ([`EnginePrompts`]): from [`encode`].
        answers: token ids of each answer, B sequences of A ids.
        hidden_states: of each answer, B arrays `(A, hidden_size)`: after the final norm, the states that PREDICT its
            tokens. The first is that of the prompt's last token, and that of the last token of the answer is not
            among them.

    Returns:
        [`LiteLVLMSegmentationOutput`] as `segment` gives it, with `sequences`, `pred_masks`, `mask_scores` and
        `seg_embeddings`.

    Raises:
        ValueError: a model or prompts without SAM, other numbers of answers than of prompts, or of states than of
            tokens in an answer.
    """
    image_embeddings = prompts.image_state.sam_image_embeddings
    if model.config.sam_config is None:
        raise ValueError("This model has no SAM (`sam_config` is None), so it makes no masks: its answers are all.")
    if image_embeddings is None:
        raise ValueError("`prompts` hold no image embeddings of SAM; `encode` them with a model that makes masks.")
    input_ids = prompts.inputs["input_ids"]
    if not len(input_ids) == len(answers) == len(hidden_states):
        raise ValueError(
            f"There are {len(input_ids)} prompts, {len(answers)} `answers` and {len(hidden_states)} `hidden_states`; "
            "give one of each for each prompt."
        )
    head = next(model.seg_head.parameters())
    ids = [torch.as_tensor(answer, dtype=torch.long).to(input_ids.device) for answer in answers]
    states = [torch.as_tensor(rows).to(head.device, head.dtype) for rows in hidden_states]
    for number, (answer, rows) in enumerate(zip(ids, states, strict=True)):
        expected = (len(answer), model.config.get_text_config().hidden_size)
        if tuple(rows.shape) != expected:
            raise ValueError(
                f"`hidden_states[{number}]` has shape {tuple(rows.shape)}; for this answer it is to be {expected}: "
                "the state that predicts each of its tokens, of which the first is that of the prompt's last token."
            )
    is_seg = pad_sequence([answer == model.config.seg_token_id for answer in ids], batch_first=True)
    masks = model.decode_masks(
        pad_sequence(states, batch_first=True), is_seg, prompts.image_state.sam_image_embeddings
    )
    padded = pad_sequence(ids, batch_first=True, padding_value=_pad_token_id(model))
    return LiteLVLMSegmentationOutput(sequences=torch.cat([input_ids, padded], dim=1), **masks)


def _pad_token_id(model: LiteLVLMForSegmentation) -> int:
    """As `generate` pads answers that end earlier than others."""
    config = model.generation_config
    end = config.eos_token_id if config.pad_token_id is None else config.pad_token_id
    return end[0] if isinstance(end, list) else end or 0


__all__ = ["EnginePrompts", "decode", "encode"]
