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
"""What speed rests on: nothing waits for the device, nothing is computed twice, and caches hold what is left."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CompileConfig

NUM_PATCHES = 16
GENERATE = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
# Operators whose result, or the shape of it, the host has to wait for
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal.default", "item")


class Operators(TorchDispatchMode):
    """The names of all operators that run, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.names.append("nonzero" if by_mask else str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("from_state", [False, True])
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_nothing_waits_for_the_device_between_the_pixels_and_the_first_token(
    make_model, make_batch, position_mode, from_state
):
    model, batch = make_model(position_mode=position_mode), make_batch()
    batch.pop("sam_pixel_values")
    with torch.no_grad(), Operators() as operators:
        if from_state:
            batch["image_state"] = model.encode_image(batch.pop("pixel_values"))
            operators.names.clear()
        model(**batch, logits_to_keep=1).logits.argmax(dim=-1)
    # The prompt is looked at once, before anything else runs
    starts = next(i for i, name in enumerate(operators.names) if "embedding" in name or "conv" in name)
    assert [name for name in operators.names[starts:] if any(part in name for part in WAITING)] == []
    assert len(operators.names) - starts > 100


def test_a_prompt_without_padding_gives_the_same_with_and_without_its_mask(make_model, make_batch):
    model, batch = make_model(), make_batch()
    without = {name: value for name, value in batch.items() if name != "attention_mask"}
    with torch.no_grad():
        expected, got = model(**batch), model(**without)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.retained_indices, expected.retained_indices)


def test_padding_of_the_guides_texts_changes_no_selection(make_model, make_batch):
    model, batch = make_model(), make_batch()
    padded = dict(batch)
    padded["guide_input_ids"] = torch.nn.functional.pad(batch["guide_input_ids"], (0, 3), value=98)
    padded["guide_attention_mask"] = torch.nn.functional.pad(batch["guide_attention_mask"], (0, 3))
    with torch.no_grad():
        expected, got = model(**batch), model(**padded)
    torch.testing.assert_close(got.similarity, expected.similarity)
    assert torch.equal(got.retained_indices, expected.retained_indices)


@pytest.mark.parametrize("budget", [3, NUM_PATCHES, "all"])
def test_a_static_cache_holds_the_rows_that_pruning_leaves(make_model, make_batch, budget):
    kept = {"pruning_method": "none"} if budget == "all" else {"num_retained_tokens": budget}
    model, batch = make_model(**kept), make_batch()
    batch.pop("sam_pixel_values")
    output = model.generate(**batch, **GENERATE, cache_implementation="static", return_dict_in_generate=True)
    # Every row but the last token's, which is not asked for another one
    expected = 30 - NUM_PATCHES + (NUM_PATCHES if budget == "all" else budget) + GENERATE["max_new_tokens"] - 1
    assert {layer.keys.shape[2] for layer in output.past_key_values.layers} == {expected}


def test_the_whole_of_compile_for_inference_changes_no_answer_and_no_mask(make_model, make_batch):
    """Tolerance: 1e-5 on logits of masks; the answers are equal."""
    model, batch = make_model(), make_batch()
    model.config.seg_token_id = model.segment(**batch, **GENERATE).sequences[0, 33].item()
    expected = model.segment(**batch, **GENERATE)
    model.compile_for_inference(backend="eager")
    got = model.segment(**batch, **GENERATE)
    assert torch.equal(got.sequences, expected.sequences)
    assert sum(map(len, got.pred_masks)) > 0
    for mask, other in zip(got.pred_masks, expected.pred_masks, strict=True):
        torch.testing.assert_close(mask, other, atol=1e-5, rtol=1e-5)


def test_a_compiled_decoding_step_gives_the_same_answers(make_model, make_batch):
    """As on a GPU, where Transformers compiles by itself; here by its switch for all devices, without a compiler."""
    model, batch = make_model(), make_batch()
    expected = model.segment(**batch, **GENERATE)
    compile_config = CompileConfig(fullgraph=False, backend="eager", mode=None)
    compile_config._compile_all_devices = True
    got = model.segment(**batch, **GENERATE, cache_implementation="static", compile_config=compile_config)
    assert torch.equal(got.sequences, expected.sequences)


def test_answers_without_seg_do_without_sam(make_model, make_batch):
    model, batch = make_model(), make_batch()
    answers = model.segment(**batch, **GENERATE).sequences[:, 30:]
    model.config.seg_token_id = next(i for i in range(50) if i not in answers)
    model.sam.vision_encoder.register_forward_hook(lambda *_: pytest.fail("SAM has run"))
    output = model.segment(**batch, **GENERATE)
    assert [tuple(masks.shape) for masks in output.pred_masks] == [(0, 16, 16)] * len(answers)
    assert [tuple(scores.shape) for scores in output.mask_scores] == [(0,)] * len(answers)


def test_generation_that_ends_at_seg_gives_the_same_mask(make_model, make_batch):
    model, batch = make_model(), make_batch()
    model.config.seg_token_id = model.segment(**batch, **GENERATE).sequences[0, 31].item()
    expected = model.segment(**batch, **GENERATE)
    got = model.segment(**batch, **GENERATE | {"eos_token_id": [model.config.seg_token_id], "pad_token_id": 0})
    assert len(got.pred_masks[0]) == 1
    torch.testing.assert_close(got.pred_masks[0], expected.pred_masks[0][:1])


def test_prompts_are_not_turned_into_logits_while_generating(make_model, make_batch):
    model, batch = make_model(), make_batch()
    rows = []
    model.lm_head.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    model.segment(**batch, **GENERATE)
    assert rows == [1] * GENERATE["max_new_tokens"]
