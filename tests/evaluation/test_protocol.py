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
"""The two ways of asking."""

import torch

from litelvlm.evaluation.protocol import ask, prompts


def test_conversation_shares_one_selection_among_up_to_three_texts(embedded, val, monkeypatch):
    model, processor = embedded
    image, seen = val[0].load_image(), []
    texts = [f"the {colour} object" for colour in ("red", "blue", "green", "pink")]
    decode = model.decode_masks
    monkeypatch.setattr(model, "decode_masks", lambda *a: (seen.append(a[1].sum(-1).tolist()), decode(*a))[1])
    inputs = processor(image, **prompts("conversation", texts))
    state = model.encode_image(inputs["pixel_values"], inputs["sam_pixel_values"])
    choice = {"pruning_method": "litelvlm", "num_retained_tokens": 85}
    with torch.inference_mode():
        masks, kept = ask(model, processor, inputs, state, choice)
    assert kept == [85] * 4
    assert seen == [[3, 1]] and [tuple(mask.shape) for mask in masks] == [(1, 256, 256)] * 4
