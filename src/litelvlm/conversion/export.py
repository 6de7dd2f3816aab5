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
The parts that fit on a small device, as programs of `torch.export`: what turns an image and a question into the few
visual tokens that a language model elsewhere needs, and what turns its [SEG] embeddings into masks.
"""

from typing import Any

import torch
from torch import nn

from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.pruning_litelvlm import KEEP_ALL, PruningPlan


class VisionSide(nn.Module):
    """
    CLIP, guide, selection and projector.

    Args:
        model: with a plain LLaVA or VipLLaVA as backbone; its configured method and budget are used.

    Raises:
        ValueError: the model prunes nothing, or its images have different numbers of tokens.
    """

    def __init__(self, model: LiteLVLMForSegmentation):
        super().__init__()
        plan = PruningPlan.resolve(model.config)
        if plan.selector is KEEP_ALL or model.config.has_varying_lengths:
            raise ValueError(
                "Only a model that prunes, and whose images all have as many tokens (no crops, no Qwen-VL), has a "
                "vision side to export."
            )
        self.model, self.plan = model.model, plan

    def forward(
        self,
        pixel_values: torch.Tensor,
        guide_input_ids: torch.Tensor,
        guide_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): images as CLIP takes them.
            guide_input_ids (`torch.LongTensor` of shape `(B, T, G)`): texts for CLIP.
            guide_attention_mask (`torch.LongTensor` of shape `(B, T, G)`): all 0 for an absent text.
                `None` if there is none.

        Returns:
            Visual tokens `(B, K, hidden_size)` in the order for the language model, and their patches `(B, K)`.
        """
        state = self.model.encode_image(pixel_values)
        tokens, _ = self.model.select_tokens(state, guide_input_ids, guide_attention_mask, self.plan)
        return self.model.project(state, tokens), tokens.indices


class MaskSide(nn.Module):
    """The [SEG] head and SAM's mask decoder."""

    def __init__(self, model: LiteLVLMForSegmentation):
        super().__init__()
        self.seg_head, self.sam = model.seg_head, model.sam

    def forward(self, hidden_states: torch.Tensor, image_embeddings: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(B, M, hidden_size)`): the language model's, that predict [SEG].
            image_embeddings (`torch.Tensor` of shape `(B, C, h / 4, h / 4)`): of `sam.encode_image`; of SAM 2 with 4
                times as many channels.

        Returns:
            `torch.Tensor` of shape `(B, M, h, h)`: low-resolution mask logits.
        """
        return self.sam.decode_masks(self.seg_head(hidden_states), image_embeddings)[0]


def export_part(part: VisionSide | MaskSide, *inputs: torch.Tensor) -> torch.export.ExportedProgram:
    """The part as a program of `torch.export`, for inputs of these shapes."""
    with torch.no_grad():
        return torch.export.export(part.eval(), inputs, strict=False)


def export_onnx(part: VisionSide | MaskSide, *inputs: torch.Tensor) -> Any:
    """
    The part as an ONNX program, with `save(path)` and `model_proto`; needs the packages onnx and onnxscript.

    Args:
        inputs: as the part's `forward` takes them; the program is for inputs of these shapes.
    """
    from onnxscript import opset18 as op

    def stable_sort(values: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        # PyTorch translates no stable sort; TopK of everything is one, as equal values keep their order in it
        size = op.Shape(values, start=dim, end=None if dim == -1 else dim + 1)
        return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

    table = {torch.ops.aten.sort.stable: stable_sort}
    return torch.onnx.export(export_part(part, *inputs), dynamo=True, custom_translation_table=table, verbose=False)


__all__ = ["MaskSide", "VisionSide", "export_onnx", "export_part"]
