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
Transformers' common tests of models, on LiteLVLM with and without pruning, and on LLaVA as the control.

A pruned prompt has fewer positions in the language model than tokens, which `encoder_seq_length` says.
"""

import unittest
from unittest.mock import patch

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaModel
from transformers.testing_utils import torch_device

from litelvlm import LiteLVLMConfig, LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation, LiteLVLMModel
from litelvlm.modeling.modeling_litelvlm import LiteLVLMPreTrainedModel

from . import test_modeling_common
from .generation.test_utils import GenerationTesterMixin
from .test_configuration_common import ConfigTester
from .test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

IMAGE_ID, SEG_ID, NUM_PATCHES, NUM_RETAINED_TOKENS, VOCAB_SIZE = 4, 5, 16, 6, 99

# Only there do the tests look up which classes take labels: the library's own tables stay as they are
test_modeling_common.MODEL_MAPPING_NAMES = {
    **test_modeling_common.MODEL_MAPPING_NAMES,
    "litelvlm": "LiteLVLMModel",
}
test_modeling_common.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES = {
    **test_modeling_common.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "litelvlm": "LiteLVLMForConditionalGeneration",
    "litelvlm_with_masks": "LiteLVLMForSegmentation",
}

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
TEXT = SMALL | {"model_type": "llama", "vocab_size": VOCAB_SIZE, "num_key_value_heads": 4}
TEXT |= {"max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = SMALL | {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 2, "projection_dim": 32}
GUIDE = SMALL | {"vocab_size": VOCAB_SIZE, "projection_dim": 32, "max_position_embeddings": 16}
GUIDE |= {"bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 98}
LLAVA = {
    "vision_config": VISION,
    "text_config": TEXT,
    "image_token_index": IMAGE_ID,
    "image_seq_length": NUM_PATCHES,
    "vision_feature_layer": -1,
}
SAM_SIZE = {"image_size": 32, "patch_size": 8}
SAM = {
    "vision_config": SAM_SIZE
    | {"hidden_size": 32, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 37}
    | {"window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 4},
    "prompt_encoder_config": SAM_SIZE | {"hidden_size": 8, "mask_input_channels": 4},
    "mask_decoder_config": {"hidden_size": 8, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8},
}


class LlavaTester:
    """What upstream calls a model tester: a tiny configuration and a batch."""

    __test__ = False
    is_training = True
    batch_size, seq_length, vocab_size = 3, 7 + NUM_PATCHES, VOCAB_SIZE
    encoder_seq_length = seq_length
    num_hidden_layers, hidden_size, num_attention_heads = (
        TEXT[name] for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    image_token_id, num_image_tokens = IMAGE_ID, NUM_PATCHES

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return LlavaConfig(**LLAVA)

    def prepare_config_and_inputs_for_common(self):
        input_ids = ids_tensor([self.batch_size, self.seq_length], VOCAB_SIZE - 6) + 6  # text without special tokens
        input_ids[:, :NUM_PATCHES] = IMAGE_ID
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": floats_tensor([self.batch_size, 3, 8, 8]),
        }
        return self.get_config(), {name: value.to(torch_device) for name, value in inputs.items()}


class LiteLVLMTester(LlavaTester):
    def __init__(self, parent, is_pruned, has_masks):
        super().__init__(parent)
        self.is_pruned, self.has_masks = is_pruned, has_masks
        self.encoder_seq_length = self.seq_length - is_pruned * (NUM_PATCHES - NUM_RETAINED_TOKENS)

    def get_config(self):
        return LiteLVLMConfig(
            backbone_config={"model_type": "llava"} | LLAVA,
            guide_config=GUIDE,
            sam_config=SAM if self.has_masks else None,
            num_retained_tokens=NUM_RETAINED_TOKENS,
            pruning_method="litelvlm" if self.is_pruned else "none",
            seg_token_id=SEG_ID,
            mask_embedding_size=8,
        )

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        guide_input_ids = ids_tensor([self.batch_size, 2, 5], 97)
        guide_input_ids[..., -1] = 98
        more = {"guide_input_ids": guide_input_ids, "guide_attention_mask": torch.ones_like(guide_input_ids)}
        if self.has_masks:
            inputs["input_ids"][:, -3] = SEG_ID
            more["sam_pixel_values"] = floats_tensor([self.batch_size, 3, 32, 32])
        return config, inputs | {name: value.to(torch_device) for name, value in more.items()}


class Control(ModelTesterMixin):
    _is_composite = True

    def setUp(self):
        self.model_tester = LlavaTester(self)
        self.config_tester = ConfigTester(
            self,
            config_class=LlavaConfig,
            has_text_modality=False,
            common_properties=["image_token_index", "vision_feature_layer", "image_seq_length"],
        )

    def test_config(self):
        self.config_tester.run_common_tests()


class LlavaModelTest(Control, unittest.TestCase):
    all_model_classes = (LlavaModel,)
    all_generative_model_classes = ()


class LlavaForConditionalGenerationTest(Control, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = all_generative_model_classes = (LlavaForConditionalGeneration,)


class Common(ModelTesterMixin):
    is_pruned = has_masks = False
    _is_composite = True
    # Upstream knows of each parameter or of none. The selection has no gradient, nor have the guide, CLIP's last norm,
    # the prompts of SAM that are not used and its IoU head, which no loss reads; our own tests look at the rest
    test_all_params_have_gradient = False

    def setUp(self):
        self.model_tester = LiteLVLMTester(self, self.is_pruned, self.has_masks)
        self.config_tester = ConfigTester(
            self,
            config_class=LiteLVLMConfig,
            has_text_modality=False,
            common_properties=["image_token_id", "num_patches", "num_retained_tokens", "pruning_method"],
            num_retained_tokens=64,
            pruning_method="litelvlm" if self.is_pruned else "none",
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and self.has_masks:
            inputs["mask_labels"] = [torch.ones(1, 16, 16, device=torch_device) for _ in inputs["input_ids"]]
        return inputs

    def test_can_init_all_missing_weights(self):
        """But CLIP's text projection, which CLIP draws twice: for CLIP itself upstream skips this, as of 2021."""
        try:
            loads_incomplete_weights("test_can_init_all_missing_weights")(self)
        except AssertionError as error:
            if not str(error).endswith("{'`weight` in module `Linear` called from `CLIPPreTrainedModel`\\n'}"):
                raise

    @unittest.skip("LiteLVLM: the cache is an argument of the backbone; our own tests hand it on by both names")
    def test_bc_cache_name_forward(self):
        pass

    def test_sdpa_can_dispatch_composite_models(self):
        """Of the parts, which stand a level deeper here."""

        def of_backbone(name):
            return patch.object(LiteLVLMModel, name, property(lambda m: getattr(m.backbone, name)), create=True)

        with of_backbone("vision_tower"), of_backbone("language_model"):
            super().test_sdpa_can_dispatch_composite_models()

    def test_tp_plan_matches_params(self):
        """The backbone's plan is that of its own parts."""
        with patch.object(LiteLVLMConfig, "base_model_tp_plan", {}):
            super().test_tp_plan_matches_params()


def loads_incomplete_weights(name):
    """A test that takes parts of a checkpoint away, which our loading refuses unless it is told to."""

    def test(self):
        strict = LiteLVLMPreTrainedModel.from_pretrained.__func__

        def lenient(cls, *args, **kwargs):
            return strict(cls, *args, ignore_incomplete_weights=True, **kwargs)

        with patch.object(LiteLVLMPreTrainedModel, "from_pretrained", classmethod(lenient)):
            getattr(ModelTesterMixin, name)(self)

    return test


for _name in (
    "test_base_model_prefix_loads_base_weights",
    "test_correct_missing_keys",
    "test_model_weights_reload_no_missing_tied_weights",
):
    if hasattr(ModelTesterMixin, _name):  # not all versions have all
        setattr(Common, _name, loads_incomplete_weights(_name))


class LiteLVLMModelPrunedTest(Common, unittest.TestCase):
    is_pruned = True
    all_model_classes = (LiteLVLMModel,)
    all_generative_model_classes = ()


class LiteLVLMModelUnprunedTest(Common, unittest.TestCase):
    all_model_classes = (LiteLVLMModel,)
    all_generative_model_classes = ()


class LiteLVLMForConditionalGenerationPrunedTest(Common, GenerationTesterMixin, unittest.TestCase):
    is_pruned = True
    all_model_classes = all_generative_model_classes = (LiteLVLMForConditionalGeneration,)


class LiteLVLMForConditionalGenerationUnprunedTest(Common, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = all_generative_model_classes = (LiteLVLMForConditionalGeneration,)


class LiteLVLMForSegmentationPrunedTest(Common, GenerationTesterMixin, unittest.TestCase):
    is_pruned = has_masks = True
    all_model_classes = all_generative_model_classes = (LiteLVLMForSegmentation,)


class LiteLVLMForSegmentationUnprunedTest(Common, GenerationTesterMixin, unittest.TestCase):
    has_masks = True
    all_model_classes = all_generative_model_classes = (LiteLVLMForSegmentation,)
