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
"""Exported parts compute what the model computes."""

import pytest
import torch

from litelvlm.conversion.export import MaskSide, VisionSide, export_onnx, export_part

from ..sam2 import SAM2


@pytest.fixture(params=["vision", "mask", "mask of SAM 2"])
def part_and_inputs(request, make_model, make_batch):
    decoder = {"sam_config": SAM2} if request.param == "mask of SAM 2" else {}
    model, batch = make_model(**decoder), make_batch(batch_size=1)
    if request.param == "vision":
        return VisionSide(model), [batch[n] for n in ("pixel_values", "guide_input_ids", "guide_attention_mask")]
    with torch.no_grad():
        embeddings = model.sam.encode_image(batch["sam_pixel_values"])
    hidden_states = torch.randn(1, 2, 48, generator=torch.Generator().manual_seed(0))
    return MaskSide(model), [hidden_states, embeddings]


def outputs_of(part, inputs):
    with torch.no_grad():
        outputs = part(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_an_exported_program_equals_the_part(part_and_inputs, tmp_path):
    part, inputs = part_and_inputs
    torch.export.save(export_part(part, *inputs), tmp_path / "part.pt2")
    program = torch.export.load(tmp_path / "part.pt2").module()
    for got, expected in zip(outputs_of(program, inputs), outputs_of(part, inputs), strict=True):
        torch.testing.assert_close(got, expected)


def test_an_onnx_program_equals_the_part(part_and_inputs):
    """Tolerance: 1e-4; the retained patches are the same."""
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    part, inputs = part_and_inputs
    model = export_onnx(part, *inputs).model_proto
    names = [value.name for value in model.graph.input]
    got = reference.ReferenceEvaluator(model).run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    for array, expected in zip(got, outputs_of(part, inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(array), expected, atol=1e-4, rtol=1e-4)


def test_the_vision_side_gives_the_embeddings_for_the_language_model(make_model, make_batch):
    model, batch = make_model(), make_batch()
    given = []
    model.model.backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        expected = model(**batch).retained_indices
        tokens, retained = VisionSide(model)(*(batch[n] for n in ("pixel_values", "guide_input_ids")))
    assert torch.equal(retained, expected)
    torch.testing.assert_close(given[0][:, 4 : 4 + 6], tokens)


def test_a_model_that_prunes_nothing_has_no_vision_side(make_model):
    with pytest.raises(ValueError, match="Only a model that prunes"):
        VisionSide(make_model(pruning_method="none"))
