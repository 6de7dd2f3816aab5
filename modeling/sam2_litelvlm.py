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
Transformers' SAM 2 behind [SEG] tokens, in the place of SAM and with the same two methods.

B = batch, M = masks per sample (padded), C = width of a mask embedding, S = side of SAM 2's square input,
h = side of the low-resolution masks (S / 4).
"""

import torch
from torch import nn
from transformers import Sam2Model

from .sam_litelvlm import fetched, tokens_of, unprompted


class LiteLVLMSam2(nn.Module):
    """SAM 2 with mask embeddings in place of points and boxes: each is the only sparse prompt of its mask."""

    def __init__(self, model: Sam2Model):
        super().__init__()
        self.model = model

    @property
    def vision_encoder(self) -> nn.Module:
        return self.model.vision_encoder

    def encode_image(self, sam_pixel_values: torch.Tensor) -> torch.Tensor:
        """
        As `Sam2Model.get_image_embeddings`, with gradients, in SAM 2's own dtype, and in one tensor.

        Args:
            sam_pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): images as SAM 2's image processor makes them.

        Returns:
            `torch.Tensor` of shape `(B, 4 * C, S / 16, S / 16)`: SAM 2's features of strides 4, 8 and 16, of which
            each block of finer ones stands in the channels of one place: 2 * C, C and C channels.

        Raises:
            ValueError: images of another size.
        """
        side = self.model.prompt_encoder.input_image_size
        if sam_pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"`sam_pixel_values` has shape {tuple(sam_pixel_values.shape)}; this SAM 2 takes (images, 3, {side}, "
                f"{side}), as its image processor makes them."
            )
        pixel_values = sam_pixel_values.to(self.model.dtype)
        features = self.model.get_image_features(pixel_values, return_dict=True).fpn_hidden_states
        with fetched(self.model):
            features[-1] = features[-1] + self.model.no_memory_embedding  # an image has no frame before it
        sizes = self.model.backbone_feature_sizes
        maps = [values.permute(1, 2, 0).unflatten(-1, size) for values, size in zip(features, sizes, strict=True)]
        side = maps[-1].shape[-1]
        return torch.cat([nn.functional.pixel_unshuffle(values, values.shape[-1] // side) for values in maps], dim=1)

    def decode_masks(
        self, mask_embeddings: torch.Tensor, image_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            mask_embeddings (`torch.Tensor` of shape `(B, M, C)`): one prompt per mask.
            image_embeddings (`torch.Tensor` of shape `(B, 4 * C, S / 16, S / 16)`): from `encode_image`.

        Returns:
            Low-resolution mask logits `(B, M, h, h)` in the frame of SAM 2's square input, and SAM 2's prediction of
            each mask's IoU, `(B, M)`.
        """
        width = mask_embeddings.shape[-1]
        stride_4, stride_8, stride_16 = image_embeddings.split([2 * width, width, width], dim=1)
        prompts = mask_embeddings.to(stride_16.device, stride_16.dtype)
        finer = [nn.functional.pixel_shuffle(stride_4, 4), nn.functional.pixel_shuffle(stride_8, 2)]
        with tokens_of(self.model.mask_decoder):
            masks, predicted_iou, _, _ = self.model.mask_decoder(
                image_embeddings=stride_16,
                high_resolution_features=finer,
                sparse_prompt_embeddings=prompts[:, :, None],
                multimask_output=False,
                **unprompted(self.model, stride_16),
            )
        return masks[:, :, 0], predicted_iou[:, :, 0]


__all__ = ["LiteLVLMSam2"]
