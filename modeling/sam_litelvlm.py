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
From [SEG] hidden states to masks: a two-layer head and Transformers' own SAM, with the losses of LISA and GLaMM.

B = batch, M = masks per sample (padded), C = width of a mask embedding, S = side of SAM's square input,
h = side of the low-resolution masks (S / 4).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn
from transformers import Sam2Model, SamModel


class LiteLVLMSegHead(nn.Module):
    """Two linear layers with ReLU between, from the language model's width to a mask embedding's."""

    def __init__(self, hidden_size: int, mask_embedding_size: int):
        super().__init__()
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, mask_embedding_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.linear_2(nn.functional.relu(self.linear_1(hidden_states)))


class LiteLVLMSam(SamModel):
    """SAM with mask embeddings in place of points and boxes: each is the only sparse prompt of its mask."""

    def encode_image(self, sam_pixel_values: torch.Tensor) -> torch.Tensor:
        """
        As `get_image_embeddings`, with gradients and in SAM's own dtype.

        Args:
            sam_pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): images as SAM's processor makes them.

        Returns:
            `torch.Tensor` of shape `(B, C, S / 16, S / 16)`.
        """
        return self.vision_encoder(sam_pixel_values.to(self.vision_encoder.dtype)).last_hidden_state

    def decode_masks(
        self, mask_embeddings: torch.Tensor, image_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            mask_embeddings (`torch.Tensor` of shape `(B, M, C)`): one prompt per mask.
            image_embeddings (`torch.Tensor` of shape `(B, C, S / 16, S / 16)`): from `encode_image`.

        Returns:
            Low-resolution mask logits `(B, M, h, h)` in the frame of SAM's square input, and SAM's prediction of each
            mask's IoU, `(B, M)`.
        """
        prompts = mask_embeddings.to(image_embeddings.device, image_embeddings.dtype)
        with tokens_of(self.mask_decoder):
            masks, predicted_iou = self.mask_decoder(
                image_embeddings=image_embeddings,
                sparse_prompt_embeddings=prompts[:, :, None],
                multimask_output=False,
                **unprompted(self, image_embeddings),
            )
        return masks[:, :, 0], predicted_iou[:, :, 0]


@contextmanager
def fetched(*modules: nn.Module) -> Iterator[None]:
    """
    With the weights of modules that others read. Of an offloaded model accelerate fetches a module's weights for its
    own forward pass only.
    """
    hooks = [(module, module._hf_hook) for module in modules if hasattr(module, "_hf_hook")]
    for module, hook in hooks:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for module, hook in hooks:
            hook.post_forward(module, None)


def tokens_of(mask_decoder: nn.Module) -> AbstractContextManager[None]:
    """With the tokens of a mask decoder, which it reads as weights of its parts."""
    return fetched(*(part for part in mask_decoder.children() if isinstance(part, nn.Embedding)))


def unprompted(sam: SamModel | Sam2Model, image_embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    What the mask decoder of a SAM is told of every place of an image, `(B, C, h, h)`: its position, and that no mask
    is given. As `get_image_wide_positional_embeddings` and the prompt encoder have it, which work on the device of a
    weight: of an offloaded model that is the meta device.
    """
    size, device = image_embeddings.shape[-1], image_embeddings.device
    center = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    x, y = torch.meshgrid(center, center, indexing="xy")
    positions = sam.shared_image_embedding(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]
    # A lookup, not the weight itself: accelerate fetches an offloaded weight only for a forward pass
    no_mask = sam.prompt_encoder.no_mask_embed(torch.zeros(1, dtype=torch.long, device=device))[..., None, None]
    return {
        "image_positional_embeddings": positions.expand_as(image_embeddings),
        "dense_prompt_embeddings": no_mask.expand_as(image_embeddings),
    }


def mask_losses(
    pred_masks: list[torch.Tensor], mask_labels: list[torch.Tensor], weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Binary cross-entropy and Dice loss, each summed over masks and divided by their number, as LISA and GLaMM do.

    That mean over a batch grows with the number of batches that a step adds up. Where weights are given, each loss is
    the weighted sum of the samples' own means instead, whatever else is in the batch.

    Args:
        pred_masks (`list[torch.Tensor]`): per sample mask logits of shape `(num_masks, h, h)`.
        mask_labels (`list[torch.Tensor]`): per sample 0 / 1 masks of shape `(num_masks, H, H)` in the same frame, at
            any resolution; negative values mark pixels without a label, such as SAM's padding. Logits are
            interpolated to the labels' resolution.
        weights (`torch.Tensor` of shape `(B,)`, *optional*): share of each sample in an optimizer step.

    Returns:
        Two scalars: the cross-entropy and the Dice loss; 0 when there is no mask at all.

    Raises:
        ValueError: numbers of masks and labels differ, or labels of another shape.
    """
    for labels in mask_labels:
        if not isinstance(labels, torch.Tensor) or labels.ndim != 3 or labels.shape[1] != labels.shape[2]:
            shape = f" of shape {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else ""
            raise ValueError(
                f"`mask_labels` holds a {type(labels).__name__}{shape}; allowed are tensors (num_masks, H, H) "
                "in SAM's square, as the processor makes them of `segmentation_maps`."
            )
    counts, expected = [len(masks) for masks in pred_masks], [len(labels) for labels in mask_labels]
    if counts != expected:
        raise ValueError(
            f"`mask_labels` holds {expected} masks per sample but the answers hold {counts} [SEG] tokens; give one "
            "mask for each [SEG], in their order."
        )
    # What a mask of each sample counts for
    shares = [1 / max(sum(counts), 1)] * len(counts)
    if weights is not None:
        device = pred_masks[0].device
        shares = list(weights.to(device) / torch.tensor(counts, device=device).clamp(min=1))
    bce = dice = pred_masks[0].new_zeros((), dtype=torch.float32)
    for logits, labels, share in zip(pred_masks, mask_labels, shares, strict=True):
        if len(labels) == 0:
            continue
        labels = labels.to(logits.device, torch.float32)
        # In float32: sums over a whole image overflow half precision
        logits = nn.functional.interpolate(logits.float()[None], labels.shape[-2:], mode="bilinear")[0].flatten(1)
        labels = labels.flatten(1)
        known = labels >= 0
        labels = labels.where(known, 0.0)
        pixel_loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        bce = bce + ((pixel_loss * known).sum(-1) / known.sum(-1).clamp(min=1)).sum() * share
        probability = logits.sigmoid() * known
        # The scale keeps the added 1e-6 as small beside the sums as in the training of the published checkpoints
        overlap, total = 2 * (probability * labels).sum(-1) / 1000, (probability + labels).sum(-1) / 1000
        dice = dice + (1 - (overlap + 1e-6) / (total + 1e-6)).sum() * share
    return bce, dice


__all__ = ["LiteLVLMSam", "LiteLVLMSegHead", "fetched", "mask_losses", "tokens_of", "unprompted"]
