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
Converted LISA and GLaMM against what their official implementations gave, on tiny random weights.

Hidden states, mask embeddings and image embeddings agree to 1e-5. With these random weights SAM's mask decoder is
ill-conditioned: a relative change of 3e-6 of the image embedding, less than versions of PyTorch differ by, changes
mask logits by up to a third. So the decoder is compared with a plain reference in float64, to 1e-9, and the golden
masks with the bound that rounding of the image embedding sets, measured in the test itself.
"""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from litelvlm import LiteLVLMForSegmentation
from litelvlm.conversion import convert
from litelvlm.conversion.weights import CheckpointReader

spec = importlib.util.spec_from_file_location("reference_sam", Path(__file__).parent / "reference_sam.py")
reference_sam = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference_sam)

GOLDEN = Path(__file__).parent.parent / "golden"
# Between the versions of torch and transformers that gave these files and today's: relative to the largest value
FLOAT32 = 1e-5


def assert_close(actual, expected, tolerance=FLOAT32):
    error = relative_error(actual, expected)
    assert error <= tolerance, f"relative error {error:.2e}"


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


class Case:
    """A converted checkpoint in float32, its golden tensors, and the images that they were made of."""

    def __init__(self, name, seg_token_id, folder):
        golden = GOLDEN / f"{name}_tiny"
        convert(golden / "checkpoint", folder, clip=golden / "clip", seg_token_id=seg_token_id)
        self.model = LiteLVLMForSegmentation.from_pretrained(folder, dtype=torch.float32)
        # The golden selections are those of the authors' published code
        self.model.config.selection_rule = "released"
        self.meta = json.loads((golden / "meta.json").read_text())
        self.io = load_file(golden / "io.safetensors")
        self.sam_pixel_values = self.io["sam_pixel_values_64"].repeat_interleave(16, 2).repeat_interleave(16, 3)
        height, width = self.meta["resize"]
        self.sam_pixel_values[:, :, height:] = 0
        self.sam_pixel_values[:, :, :, width:] = 0

    def inputs(self, input_ids):
        """Inputs of `forward`, with N placeholders where the official prompt has one -200."""
        position = int((input_ids[0] == -200).nonzero())
        image = torch.full((1, self.model.config.num_patches), self.model.config.image_token_id)
        return {
            "input_ids": torch.cat([input_ids[:, :position], image, input_ids[:, position + 1 :]], dim=1),
            "pixel_values": self.io["pixel_values"],
            "sam_pixel_values": self.sam_pixel_values,
        }

    def assert_masks(self, pred_masks, seg_embeddings, low_res_logits, mask_logits):
        """Masks of one conversation against golden ones, within what rounding of the image embedding explains."""
        image = self.model.sam.encode_image(self.sam_pixel_values)
        bounds = []
        for seed in range(3):
            noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
            moved = self.model.sam.decode_masks(seg_embeddings[None], image + 3e-6 * image.abs().max() * noise)[0][0]
            bounds.append(relative_error(moved, pred_masks))
        tolerance = max(FLOAT32, max(bounds))
        full_size = self.full_size(pred_masks[:, None])
        if low_res_logits is not None:
            assert_close(pred_masks[:, None], low_res_logits, tolerance)
        assert_close(full_size, mask_logits, tolerance)
        assert ((full_size > 0) == (mask_logits > 0)).float().mean() > 0.995
        assert (full_size - mask_logits).abs().mean() < 0.02 * mask_logits.abs().mean()

    def full_size(self, low_res_logits):
        """Logits at the image's size, `(masks, 1, h, w)` to `(masks, H, W)`: as the processor resizes them."""
        height, width = self.meta["resize"]
        logits = torch.nn.functional.interpolate(low_res_logits, (1024, 1024), mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width]
        size = self.meta["original_size"]
        return torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0]


@pytest.fixture(scope="module")
def lisa(tmp_path_factory):
    return Case("lisa", 217, tmp_path_factory.mktemp("lisa") / "converted")


@pytest.fixture(scope="module")
def glamm(tmp_path_factory):
    return Case("glamm", 227, tmp_path_factory.mktemp("glamm") / "converted")


@torch.no_grad()
def test_lisa_teacher_forced(lisa):
    output = lisa.model(**lisa.inputs(lisa.io["forced.input_ids"]), pruning_method="none")
    assert_close(output.last_hidden_state, lisa.io["forced.last_hidden_state"])
    # The word that conversion adds, <image>, is the last
    assert_close(output.logits[..., :-1], lisa.io["forced.logits"])
    assert_close(output.seg_embeddings[0], lisa.io["forced.seg_embeddings"])
    golden = (lisa.io["forced.low_res_logits"], lisa.io["forced.mask_logits"])
    lisa.assert_masks(output.pred_masks[0], output.seg_embeddings[0], *golden)


@torch.no_grad()
def test_lisa_image_embedding(lisa):
    embedding = lisa.model.sam.encode_image(lisa.sam_pixel_values)
    assert_close(embedding[:, :8, :8, :8], lisa.io["image_embedding_corner"])


@torch.no_grad()
def test_lisa_generated(lisa, monkeypatch):
    monkeypatch.setattr(lisa.model.config, "seg_token_id", lisa.meta["generate_seg_token_id"])
    inputs = lisa.inputs(lisa.io["generate.input_ids"])
    output = lisa.model.segment(**inputs, pruning_method="none", max_new_tokens=8, do_sample=False, eos_token_id=None)
    answer = output.sequences[:, inputs["input_ids"].shape[1] :]
    assert answer.tolist() == lisa.io["generate.output_ids"][:, lisa.io["generate.input_ids"].shape[1] :].tolist()
    lisa.assert_masks(output.pred_masks[0], output.seg_embeddings[0], None, lisa.io["generate.mask_logits"])


@pytest.mark.parametrize("budget", ["all", "budget192", "budget64"])
@pytest.mark.parametrize("texts", [1, 3])
@torch.no_grad()
def test_glamm_teacher_forced(glamm, texts, budget):
    expected = {
        name.removeprefix(f"text{texts}.{budget}."): tensor
        for name, tensor in glamm.io.items()
        if name.startswith(f"text{texts}.{budget}.")
    }
    choice = {"pruning_method": "none"}
    if budget != "all":
        choice = {"num_retained_tokens": int(budget.removeprefix("budget"))}
    output = glamm.model(
        **glamm.inputs(glamm.io[f"text{texts}.input_ids"]),
        guide_input_ids=glamm.io[f"text{texts}.guide_input_ids"][None],
        guide_attention_mask=glamm.io[f"text{texts}.guide_attention_mask"][None],
        **choice,
    )
    if budget == "all":
        assert output.retained_indices is None
    else:
        assert output.retained_indices[0].tolist() == expected["retained"].tolist()
    if "last_hidden_state" in expected:
        assert_close(output.last_hidden_state, expected["last_hidden_state"])
    length = expected["text_hidden_state"].shape[1]
    assert_close(output.last_hidden_state[:, -length:], expected["text_hidden_state"])
    assert_close(output.seg_embeddings[0], expected["seg_embeddings"])
    golden = (expected["low_res_logits"], expected["mask_logits"])
    glamm.assert_masks(output.pred_masks[0], output.seg_embeddings[0], *golden)


@pytest.mark.parametrize(("name", "prefix"), [("lisa", "visual_model"), ("glamm", "grounding_encoder")])
@torch.no_grad()
def test_mask_decoder_is_segment_anythings(name, prefix, request):
    case = request.getfixturevalue(name)
    reader = CheckpointReader(GOLDEN / f"{name}_tiny" / "checkpoint")
    prefix = f"model.{prefix}."
    weights = {key.removeprefix(prefix): reader.read(key).double() for key in reader.meta if key.startswith(prefix)}
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 256, 64, 64, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(3, 256, generator=generator, dtype=torch.float64)
    decoder = copy.deepcopy(case.model.sam).double()
    assert_close(
        decoder.decode_masks(embeddings[None], image)[0][0],
        reference_sam.decode_masks(weights, embeddings, image),
        1e-9,
    )
