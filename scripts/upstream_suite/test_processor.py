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
"""Transformers' common tests of processors, on LiteLVLMProcessor."""

import unittest
from unittest.mock import patch

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast, SamImageProcessor

from litelvlm import LiteLVLMProcessor

from .test_processing_common import ProcessorTesterMixin

OURS = "LiteLVLM: "
BOS, EOS, START, END = "<s>", "</s>", "<|startoftext|>", "<|endoftext|>"


def byte_tokenizer(bos_token, eos_token, **options):
    """One token per byte, behind the token of the beginning as of any language model."""
    letters = [bos_token, eos_token, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos_token} $A", pair=f"{bos_token} $A {bos_token} $B", special_tokens=[(bos_token, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos_token, eos_token=eos_token, **options)


class LiteLVLMProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = LiteLVLMProcessor
    # Long enough for a question of a byte per token behind the template's system message
    images_text_kwargs_max_length = images_unstructured_max_length = chat_template_max_length = 300
    images_text_kwargs_override_max_length = 280

    @classmethod
    def _setup_image_processor(cls):
        return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})

    @classmethod
    def _setup_tokenizer(cls):
        tokens = {"image_token": "<image>", "start_token": "<im_start>", "end_token": "<im_end>"}
        tokenizer = byte_tokenizer(BOS, EOS, pad_token="<pad>", padding_side="left", extra_special_tokens=tokens)
        tokenizer.add_tokens([AddedToken("[SEG]", special=False, normalized=False)])
        return tokenizer

    @classmethod
    def _setup_guide_tokenizer(cls):
        return byte_tokenizer(START, END, pad_token=END, model_max_length=77)

    @classmethod
    def _setup_sam_image_processor(cls):
        return SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )

    @staticmethod
    def prepare_processor_dict():
        return {"num_image_tokens": 16}

    def get_component(self, attribute, *args, **kwargs):
        """SAM's image processor by its own class, as the Auto class reads the first of a folder."""
        if attribute == "sam_image_processor":
            return self.get_processor().sam_image_processor
        return super().get_component(attribute, *args, **kwargs)

    def test_processor_from_and_save_pretrained_as_nested_dict(self):
        """Of the parts that an Auto class reads by itself: it reads one image processor of a folder."""
        parts = [name for name in LiteLVLMProcessor.get_attributes() if name != "sam_image_processor"]
        with patch.object(LiteLVLMProcessor, "get_attributes", lambda *_: parts):
            super().test_processor_from_and_save_pretrained_as_nested_dict()

    def _test_apply_chat_template(self, *args, **kwargs):
        """As upstream's, without the options of videos that it gives to processors of images: ours refuses them."""
        original = LiteLVLMProcessor.apply_chat_template

        def without_frames(processor, *args, processor_kwargs=None, **kwargs):
            given = {k: v for k, v in (processor_kwargs or {}).items() if k not in ("num_frames", "fps")}
            return original(processor, *args, processor_kwargs=given, **kwargs)

        with patch.object(LiteLVLMProcessor, "apply_chat_template", without_frames):
            super()._test_apply_chat_template(*args, **kwargs)

    @unittest.skip(OURS + "`text` is a question that goes into templates, not a prompt that goes to the tokenizer")
    def test_subprocessor_defaults_0_text(self):
        pass

    @unittest.skip(OURS + "all samples of a batch keep as many tokens of an image, so that some without are refused")
    def test_processor_text_has_no_visual(self):
        pass

    @unittest.skip(OURS + "`question_template` has a default, and is another for a single call")
    def test_call_arguments_not_in_attributes(self):
        pass
