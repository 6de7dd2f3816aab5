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
"""8 and 4 bits through Transformers' quantizers: the language model's weights, and nothing else unless asked for."""

import pytest
import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, TorchAoConfig

import litelvlm
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.modeling.images_litelvlm import load_rgb
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation

torchao = pytest.importorskip("torchao.quantization")


def eight_bits():
    return torchao.Int8WeightOnlyConfig()


def four_bits():
    return torchao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=torchao.PerGroup(32))


def is_quantized(weight):
    return type(weight.data) is not torch.Tensor and type(weight.data) is not torch.nn.Parameter


def segment_example(model):
    processor = litelvlm.LiteLVLMProcessor.from_pretrained(litelvlm.TINY_MODEL)
    inputs = processor(images=load_rgb(litelvlm.EXAMPLE_IMAGE), text="the red circle")
    masks = model.segment(**inputs, max_new_tokens=8).pred_masks
    return processor.post_process_masks(masks, inputs["original_sizes"], inputs["reshaped_input_sizes"])[0]


def intersection_over_union(mask, other):
    return ((mask & other).sum() / (mask | other).sum()).item()


@pytest.mark.parametrize(("make_config", "at_least"), [(eight_bits, 0.98), (four_bits, 0.8)])
def test_quantised_masks_are_those_of_full_precision_and_survive_saving(make_config, at_least, tmp_path):
    expected = segment_example(litelvlm.load_tiny()[0])
    model, _ = litelvlm.load_tiny(quantization_config=TorchAoConfig(make_config()))
    quantised = {
        name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and is_quantized(m.weight)
    }
    assert quantised and all(name.startswith("model.backbone.language_model.layers.") for name in quantised)
    assert len(quantised) == 7 * model.config.get_text_config().num_hidden_layers
    masks = segment_example(model)
    assert len(masks) == len(expected) == 1
    assert intersection_over_union(masks[0], expected[0]) >= at_least
    model.save_pretrained(tmp_path)
    reloaded = LiteLVLMForSegmentation.from_pretrained(tmp_path)
    assert is_quantized(reloaded.model.backbone.language_model.layers[0].mlp.up_proj.weight)
    assert not is_quantized(reloaded.model.guide.visual_projection.weight)
    assert torch.equal(segment_example(reloaded), masks)


def test_modules_that_are_named_are_left_alone_instead(tmp_path):
    config = TorchAoConfig(eight_bits(), modules_to_not_convert=["model.backbone.language_model", "sam"])
    model, _ = litelvlm.load_tiny(quantization_config=config)
    assert not is_quantized(model.model.backbone.language_model.layers[0].mlp.up_proj.weight)
    assert is_quantized(model.model.guide.visual_projection.weight)


@torch.no_grad()
def test_what_selects_may_stay_in_float32_in_a_model_in_bfloat16():
    model, processor = litelvlm.load_tiny(dtype=torch.bfloat16)
    whole = litelvlm.load_tiny(dtype=torch.bfloat16)[0].float()  # the same weights
    backbone = model.model.backbone
    for part in (model.model.guide, backbone.vision_tower, backbone.multi_modal_projector):
        part.float()
    texts = ["the red circle", "the large green star", "the blue square on the left", "the small yellow thing"]
    inputs = processor(images=load_rgb(litelvlm.EXAMPLE_IMAGE), text=texts)
    got, expected = (one.segment(**inputs, answer="It is [SEG].", processor=processor) for one in (model, whole))
    assert torch.equal(got.retained_indices, expected.retained_indices)
    for mask, other in zip(got.pred_masks, expected.pred_masks, strict=True):
        assert mask.dtype == torch.bfloat16
        assert intersection_over_union(mask > 0, other > 0) > 0.95


def test_a_quantised_model_is_not_exported(tmp_path):
    model, processor = litelvlm.load_tiny(quantization_config=TorchAoConfig(eight_bits()))
    with pytest.raises(ValueError, match="weights are quantised; export the model in full precision"):
        export_llava(model, processor, tmp_path / "llava")


@pytest.mark.parametrize("as_dict", [False, True])
def test_bitsandbytes_leaves_the_same_modules_alone(monkeypatch, as_dict):
    """It needs a GPU, so only what reaches Transformers is looked at."""
    seen = {}

    def stop(cls, name, **kwargs):
        seen.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(stop))
    config = BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(KeyboardInterrupt):
        LiteLVLMForSegmentation.from_pretrained("any", quantization_config=config.to_dict() if as_dict else config)
    skipped = seen["quantization_config"].llm_int8_skip_modules
    assert {"model.backbone.vision_tower", "model.guide", "sam", "seg_head", "lm_head"} <= set(skipped)
    assert config.llm_int8_skip_modules is None  # the caller's own is not written to
