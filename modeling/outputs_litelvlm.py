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
What LiteLVLM models take and give beside Transformers' own outputs.

B = batch, I = its images (B unless conversations have several), L = sequence length before and R after pruning,
T = texts per conversation, N = patches, K = retained tokens, D = width of the vision tower, P = width of CLIP's joint
space.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.utils import ModelOutput, auto_docstring

# What a processor makes of images, and `encode_image` a [`LiteLVLMImageState`]
IMAGE_INPUTS = (
    "pixel_values",
    "sam_pixel_values",
    "image_sizes",
    "batch_num_images",
    "image_grid_thw",
    "guide_pixel_values",
)


def _shapes(output: ModelOutput) -> str:
    """What an output holds: numbers, and shapes in place of millions of them."""
    return ", ".join(f"{name}={_shape(value)}" for name, value in output.items())


def _shape(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.item():.4g}" if value.ndim == 0 and not value.is_meta else f"{tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shape, value[:4]))}{', ...' if len(value) > 4 else ''}]"
    return type(value).__name__


def repeat_groups(values: torch.Tensor, sizes: int | list[int], repeats: int) -> torch.Tensor:
    """Values of shape `(I, ...)`, of which each group of that size, or of these sizes, is repeated in a row."""
    return torch.cat([group for group in values.split(sizes) for _ in range(repeats)])


def check_images_per_prompt(said: str, number: int, batch_size: int, hint: str = "") -> None:
    """Raises a `ValueError`, which begins with what is `said`, unless each image has equally many of the prompts."""
    if not number or batch_size % number:
        raise ValueError(
            f"{said} for {batch_size} prompts; allowed are one image per prompt{hint}, or an equal number of prompts "
            "in a row for each image."
        )


def as_counts(batch_num_images: Any) -> torch.Tensor | None:
    """
    Numbers of images as a tensor, which may be given as a list, as to Transformers' LLaVA-OneVision.

    Raises:
        ValueError: they are no whole numbers.
    """
    if isinstance(batch_num_images, (list, tuple)) and all(isinstance(number, int) for number in batch_num_images):
        return torch.tensor(batch_num_images, dtype=torch.long)
    if batch_num_images is None or (
        isinstance(batch_num_images, torch.Tensor) and not batch_num_images.is_floating_point()
    ):
        return batch_num_images
    raise ValueError(
        f"`batch_num_images` is {batch_num_images!r}; allowed are whole numbers, the images of each conversation."
    )


@auto_docstring
@dataclass
class LiteLVLMImageState(ModelOutput):
    """
    What is computed of images alone, to be asked any number of questions.

    Args:
        image_features (`torch.Tensor` of shape `(I, N, D)`): the vision tower's patches, before the projector; of
            LLaVA-OneVision behind it, of PaliGemma behind the tower's last norm, and of Qwen-VL its merged
            tokens, padded where another image has more.
        patch_embeds (`torch.Tensor` of shape `(I, N, P)`): the patches in CLIP's joint space; `None` if not pruned.
        contribution (`torch.Tensor` of shape `(I, N)`, float32): contribution of each patch to the class token by the
            paper's rule; `None` if not pruned.
        cosine_contribution (`torch.Tensor` of shape `(I, N)`): the same by the released rule; `None` if not pruned.
        class_features (`torch.Tensor` of shape `(I, D)`): the class token at the layers of `image_features`; `None`
            if not pruned, in crops, or of SigLIP.
        layer_inputs (`torch.Tensor` of shape `(I, n, 1 + N, D)`): what enters the n layers of the vision tower that
            the pruning method looks at; `None` if it looks at none.
        is_patch (`torch.BoolTensor` of shape `(I, N)`): for an image in crops, which of its placeholders are patches;
            the others are ends of lines, or padding where another image has more. `None` where all are patches. It
            stays on the CPU, as the next one, so that tokens are counted without a device sync.
        is_token (`torch.BoolTensor` of shape `(I, N)`): patches and ends of lines; `None` likewise.
        image_grid_thw (`torch.LongTensor` of shape `(I, 3)`): of Qwen-VL, frames, rows and columns of each image's
            patches before they were merged.
        sam_image_embeddings (`torch.Tensor` of shape `(I, C, h, h)`): SAM's image embeddings, where asked for; of SAM
            2 `(I, 4 * C, h, h)`, with its finer features in the channels.
        batch_num_images (`torch.LongTensor` of shape `(B,)`): images of each conversation; `None` where each has one.
    """

    image_features: torch.Tensor = None  # type: ignore[assignment]
    patch_embeds: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    cosine_contribution: torch.Tensor | None = None
    class_features: torch.Tensor | None = None
    layer_inputs: torch.Tensor | None = None
    is_patch: torch.Tensor | None = None
    is_token: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None
    sam_image_embeddings: torch.Tensor | None = None
    batch_num_images: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shapes(self)}, {self.image_features.dtype}, {self.image_features.device})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "LiteLVLMImageState":
        """A copy on another device, or with another dtype of what is floating point."""
        moved = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in self.items()
        }
        return LiteLVLMImageState(**moved)

    def without_sam(self) -> "LiteLVLMImageState":
        """A view for the language model, which has no use for SAM's embeddings."""
        return replace(self, sam_image_embeddings=None)

    def prompts_of_each(self, batch_size: int) -> int:
        """
        How many of B prompts the images of each of b conversations serve: B / b, in a row.

        Raises:
            ValueError: B is no multiple of b.
        """
        groups = self.batch_num_images
        number = len(self.image_features if groups is None else groups)
        what = "images" if groups is None else "conversations' images"
        # CODEPATH: of Qwen-VL a prompt has one image
        hint = "" if self.image_grid_thw is not None else " (of several, `batch_num_images` says how many)"
        check_images_per_prompt(f"There are {number} {what}", number, batch_size, hint)
        return batch_size // number

    def repeat_for(self, batch_size: int) -> "LiteLVLMImageState":
        """The state of b conversations' images for B prompts; raises as [`LiteLVLMImageState.prompts_of_each`]."""
        repeats = self.prompts_of_each(batch_size)
        if repeats == 1:
            return self
        sizes = 1 if self.batch_num_images is None else self.batch_num_images.tolist()
        repeated = {
            key: repeat_groups(value, 1 if key == "batch_num_images" else sizes, repeats)
            for key, value in self.items()
        }
        return LiteLVLMImageState(**repeated)

    def for_each_image(self, values: torch.Tensor) -> torch.Tensor:
        """What belongs to B conversations, `(B, ...)`, for each of their images, `(I, ...)`."""
        if self.batch_num_images is None:
            return values
        counts = self.batch_num_images.to(values.device)
        return values.repeat_interleave(counts, dim=0, output_size=len(self.image_features))

    def num_tokens(self) -> int | list[int]:
        """Visual tokens of each image before pruning: one number, or one per image where they differ."""
        if self.is_token is None:
            return self.image_features.shape[1]
        return self.is_token.sum(dim=-1).tolist()


@auto_docstring
@dataclass
class LiteLVLMModelOutput(BaseModelOutputWithPast):
    """
    What the language model gives for the R tokens that pruning leaves; each layer of its cache has R entries too.

    Args:
        retained_indices (`torch.LongTensor` of shape `(I, K)`): patches in the order for the language model; -1 for a
            token that is no single patch; `None` where all tokens are kept.
        num_retained_tokens (`torch.LongTensor` of shape `(I,)`): how many tokens each image keeps: K, or fewer by a
            method that decides so by the image; `None` where all are kept.
        similarity (`torch.Tensor` of shape `(I, T, N)`): of each patch to each text.
        contribution (`torch.Tensor` of shape `(I, N)`): of each patch to the class token, by the selection rule.
        source_positions (`torch.LongTensor` of shape `(B, R)`): for each token that the language model saw, its
            position in `input_ids`; `None` where nothing was pruned.
        attention_mask (`torch.Tensor` of shape `(B, R)`): as the language model got it.
        position_ids (`torch.LongTensor` of shape `(B, R)`, of Qwen-VL `(3, B, R)`): as the language model got them.
        image_outputs ([`BaseModelOutputWithPooling`]): its `pooler_output` lists, per image, the visual tokens that
            the language model was given, `(K, hidden_size)`. The vision tower does not run to its end here, so that
            its hidden states and attentions are those of `get_image_features`.
    """

    retained_indices: torch.Tensor | None = None
    num_retained_tokens: torch.Tensor | None = None
    similarity: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    source_positions: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shapes(self)})"


@auto_docstring
@dataclass
class LiteLVLMSegmentationOutput(CausalLMOutputWithPast):
    """
    What the language model gives for the R tokens that pruning leaves; each layer of its cache has R entries too.

    Args:
        loss (`torch.Tensor` of shape `()`): weighted sum of the losses below, with `labels` or `mask_labels`.
        ce_loss (`torch.Tensor` of shape `()`): of the answers' tokens, before weighting.
        bce_loss (`torch.Tensor` of shape `()`): of the masks' pixels, before weighting.
        dice_loss (`torch.Tensor` of shape `()`): of the masks, before weighting.
        logits (`torch.Tensor` of shape `(B, R, vocab_size)`): of the positions that `logits_to_keep` names.
        pred_masks (`list[torch.Tensor]`): per sample `(num_masks, h, h)` low-resolution mask logits in the frame of
            SAM's square input, one mask per [SEG]; `(0, h, h)` for an answer without any.
        mask_scores (`list[torch.Tensor]`): per sample `(num_masks,)`: the IoU that SAM predicts for each mask.
        seg_embeddings (`list[torch.Tensor]`): per sample `(num_masks, mask_embedding_size)`.
        sequences (`torch.LongTensor` of shape `(B, L + new_tokens)`): prompt and answer, as `generate` gives them
            (`segment` only).
        last_hidden_state (`torch.Tensor` of shape `(B, R, hidden_size)`): after the language model's final norm.
        retained_indices (`torch.LongTensor` of shape `(I, K)`): see [`LiteLVLMModelOutput`], as are the next six.
        num_retained_tokens (`torch.LongTensor` of shape `(I,)`): how many tokens each image keeps.
        similarity (`torch.Tensor` of shape `(I, T, N)`): of each patch to each text.
        contribution (`torch.Tensor` of shape `(I, N)`): of each patch to the class token.
        source_positions (`torch.LongTensor` of shape `(B, R)`): positions in `input_ids`.
        attention_mask (`torch.Tensor` of shape `(B, R)`): as the language model got it.
        position_ids (`torch.LongTensor` of shape `(B, R)`): as the language model got them.
        image_outputs ([`BaseModelOutputWithPooling`]): see [`LiteLVLMModelOutput`].
    """

    ce_loss: torch.Tensor | None = None
    bce_loss: torch.Tensor | None = None
    dice_loss: torch.Tensor | None = None
    pred_masks: list[torch.Tensor] | None = None
    mask_scores: list[torch.Tensor] | None = None
    seg_embeddings: list[torch.Tensor] | None = None
    sequences: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    retained_indices: torch.Tensor | None = None
    num_retained_tokens: torch.Tensor | None = None
    similarity: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    source_positions: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shapes(self)})"


__all__ = [
    "IMAGE_INPUTS",
    "LiteLVLMImageState",
    "LiteLVLMModelOutput",
    "LiteLVLMSegmentationOutput",
    "as_counts",
    "check_images_per_prompt",
    "repeat_groups",
]
