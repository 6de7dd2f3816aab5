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
"""Mask prompts and losses: SAM's own forward pass, and the losses' formulas in NumPy."""

import numpy as np
import pytest
import torch
from transformers import SamConfig

from litelvlm.modeling.sam_litelvlm import LiteLVLMSam, mask_losses


def test_decoding_equals_sams_own_parts_put_together(config_values):
    torch.manual_seed(0)
    sam = LiteLVLMSam(SamConfig(**config_values["sam_config"])).eval()
    images, prompts = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 16)
    with torch.no_grad():
        embeddings = sam.encode_image(images)
        torch.testing.assert_close(embeddings, sam.get_image_embeddings(images))
        got, scores = sam.decode_masks(prompts, embeddings)
        _, no_mask = sam.prompt_encoder(None, None, None, None)
        for i in range(2):
            for j in range(3):  # each mask alone, with its embedding as the only sparse prompt
                expected, iou = sam.mask_decoder(
                    image_embeddings=embeddings[i : i + 1],
                    image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
                    sparse_prompt_embeddings=prompts[i, j][None, None, None],
                    dense_prompt_embeddings=no_mask,
                    multimask_output=False,
                )
                torch.testing.assert_close(got[i, j], expected[0, 0, 0], atol=1e-6, rtol=1e-4)
                torch.testing.assert_close(scores[i, j], iou[0, 0, 0], atol=1e-6, rtol=1e-4)


def test_losses_equal_the_formulas():
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(n, 6, 6, generator=generator) for n in (2, 0, 1)]
    labels = [(torch.rand(n, 6, 6, generator=generator) > 0.5).float() for n in (2, 0, 1)]
    bce, dice = mask_losses(logits, labels)
    expected_bce, expected_dice = [], []
    for x, y in zip(torch.cat(logits).double().numpy(), torch.cat(labels).double().numpy(), strict=True):
        p = 1 / (1 + np.exp(-x))
        expected_bce.append(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
        overlap, total = 2 * (p / 1000 * y).sum(), (p / 1000).sum() + (y / 1000).sum()
        expected_dice.append(1 - (overlap + 1e-6) / (total + 1e-6))
    assert bce.item() == pytest.approx(np.mean(expected_bce), rel=1e-5)
    assert dice.item() == pytest.approx(np.mean(expected_dice), rel=1e-5)


def test_pixels_without_a_label_do_not_count():
    logits, labels = torch.randn(1, 8, 8), torch.zeros(1, 8, 8)
    labels[:, :, 4:] = -1
    whole = mask_losses([logits], [labels])
    logits[:, :, 4:] = 50.0
    assert torch.equal(torch.stack(whole), torch.stack(mask_losses([logits], [labels])))


def test_no_mask_at_all_costs_nothing_and_counts_must_agree():
    assert [loss.item() for loss in mask_losses([torch.zeros(0, 4, 4)], [torch.zeros(0, 4, 4)])] == [0, 0]
    with pytest.raises(ValueError, match=r"holds \[2\] masks per sample but the answers hold \[1\]"):
        mask_losses([torch.zeros(1, 4, 4)], [torch.zeros(2, 4, 4)])
