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
The two protocols, which are ways of asking about one image.

`generation`: every expression in a prompt of its own, answered freely, as users ask. `conversation`: up to three
expressions of an image in one conversation whose answers are given (teacher-forced), so that one forward pass makes
all masks and one selection of visual tokens serves all three; this is how the reference was evaluated. The model need
not find [SEG] by itself there, but has to share its budget between the texts. Expressions without a target are left
out of conversations: the answer that is given names a mask.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState
from ..modeling.processing_litelvlm import LiteLVLMProcessor

ANSWER = "It is [SEG]."
"""The answer that is given in a conversation; checkpoints were trained with this among others."""
EXPRESSIONS_PER_CONVERSATION = 3
MAX_NEW_TOKENS = 32
PROTOCOLS = ("generation", "conversation")


def prompts(protocol: str, questions: Sequence[str]) -> dict[str, Any]:
    """The processor's `text`, and `answers` in conversations, for some questions about one image."""
    if protocol == "generation":
        return {"text": list(questions)}
    step = EXPRESSIONS_PER_CONVERSATION
    turns = [list(questions[start : start + step]) for start in range(0, len(questions), step)]
    return {"text": turns, "answers": [[ANSWER] * len(asked) for asked in turns]}


def ask(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    inputs: Mapping[str, Any],
    state: LiteLVLMImageState,
    choice: Mapping[str, Any],
) -> tuple[list[torch.Tensor], list[int]]:
    """
    Asks the questions of one image.

    Args:
        inputs: the processor's, of [`prompts`].
        state: of the image, which is not encoded again.
        choice: `pruning_method` and `num_retained_tokens`.

    Returns:
        For each question its masks `(num_masks, H, W)`, bool, at the size of the image, in conversations one each; and
        the number of visual tokens that were kept for it, which some methods choose by the image.
    """
    in_state_or_loss = (*IMAGE_INPUTS, "labels")
    prompt = {name: value for name, value in inputs.items() if name not in in_state_or_loss}
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    if "labels" in inputs:
        output = model(**prompt, **choice, image_state=state, logits_to_keep=1)
    else:
        output = model.segment(**prompt, **choice, image_state=state, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    masks = processor.post_process_masks(output.pred_masks, *sizes)
    retained = output.num_retained_tokens
    if retained is None:
        retained = torch.tensor(state.num_tokens()).expand(len(masks))
    kept = retained.tolist()
    if "labels" not in inputs:
        return masks, kept
    # A conversation holds several questions, one mask each
    return list(torch.cat(masks).split(1)), [number for number, of in zip(kept, masks, strict=True) for _ in of]


__all__ = ["ANSWER", "PROTOCOLS", "ask", "prompts"]
