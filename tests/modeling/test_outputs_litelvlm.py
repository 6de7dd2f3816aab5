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
"""Outputs as they show themselves: shapes and not numbers."""

import pytest
import torch


@pytest.fixture
def output(make_model, make_batch):
    batch = make_batch(2)
    batch["input_ids"][:, -3:-1] = 91
    batch["labels"] = batch["input_ids"]
    with torch.no_grad():
        return make_model()(**batch, use_cache=True, output_hidden_states=True)


def test_an_output_shows_shapes_in_a_line(output):
    shown = repr(output)
    assert len(shown) < 800 and "\n" not in shown and "tensor(" not in shown
    assert shown.startswith(f"LiteLVLMSegmentationOutput(loss={output.loss.item():.4g}, logits=(2, 20, 99), ")
    assert "pred_masks=[(2, 16, 16), (2, 16, 16)], " in shown
    assert "retained_indices=(2, 6), " in shown and "=DynamicCache, " in shown


def test_many_masks_are_not_all_shown(output):
    many = type(output)(pred_masks=[torch.ones(1, 2)] * 9)
    assert repr(many) == "LiteLVLMSegmentationOutput(pred_masks=[(1, 2), (1, 2), (1, 2), (1, 2), ...])"


def test_what_is_on_no_device_or_empty_shows_itself_too(output):
    assert repr(type(output)(loss=torch.empty((), device="meta"))) == "LiteLVLMSegmentationOutput(loss=())"
    assert repr(type(output)()) == "LiteLVLMSegmentationOutput()"
