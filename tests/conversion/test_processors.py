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
"""Prompts of converted checkpoints against the tokenizer that they were trained with."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from litelvlm import LiteLVLMForSegmentation, LiteLVLMProcessor
from litelvlm.conversion import convert
from litelvlm.conversion.presets import LLAMA_2_CHAT_TEMPLATE

from ..checkpoints import ADDED, SYSTEM, reference_ids, write_checkpoint


@pytest.fixture(scope="module")
def make_source(tmp_path_factory):
    """`make_source(kind)`: a tiny checkpoint in the official layout, with tokenizers, and its CLIP's folder."""
    return lambda kind: write_checkpoint(kind, tmp_path_factory.mktemp(kind))


@pytest.mark.parametrize(
    ("kind", "opening"),
    [
        ("lisa", "<im_start><image><im_end>\n"),
        ("glamm", "The <im_start><image><im_end> provides an overview of the picture.\n"),
    ],
)
def test_prompt_is_the_trained_one_token_for_token(tmp_path, make_source, kind, opening):
    source, clip = make_source(kind)
    report = convert(source, tmp_path / "converted", clip=clip)
    assert report["processor"]
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "converted")
    image = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    questions, answers = ["the dog", "the cat on 2 mats"], ["It is [SEG].", "Sure, [SEG] ."]
    inputs = processor(image, [questions], answers=[answers])

    first, second = (f"Can you segment {words} in this image?" for words in questions)
    prompt = f"{SYSTEM} USER: {opening}{first} ASSISTANT: {answers[0]}</s>USER: {second} ASSISTANT: {answers[1]}</s>"
    expected = reference_ids(source, prompt, ADDED[kind])
    image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    position = expected.index(image_token_id)
    expected[position : position + 1] = [image_token_id] * processor.num_image_tokens
    assert inputs["input_ids"][0].tolist() == expected


def test_converted_folder_answers_in_masks(tmp_path, make_source):
    source, clip = make_source("lisa")
    convert(source, tmp_path / "converted", clip=clip, dtype="float32")
    model = LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted")
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "converted")
    assert model.config.seg_token_id == processor.tokenizer.convert_tokens_to_ids("[SEG]")
    image = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    inputs = processor(image, [["the dog"]], answers=[["It is [SEG]."]])
    with torch.no_grad():
        output = model(**inputs)
    sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
    assert [tuple(masks.shape) for masks in processor.post_process_masks(output.pred_masks, *sizes)] == [(1, 40, 60)]
    assert output.retained_indices.shape == (1, 256 // 3)
    # What [SEG] is to a reader: a part of the answer
    assert processor.tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True).endswith("It is[SEG] .")


def test_llama_2_form_is_that_of_llava(processor):
    """Two turns in the form of LISA-13B-llama2: the marks <s> and </s> stand around all but the first turn's start."""
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "one?"}]},
        {"role": "assistant", "content": "It is [SEG]."},
        {"role": "user", "content": "two?"},
    ]
    rendered = processor.apply_chat_template(messages, chat_template=LLAMA_2_CHAT_TEMPLATE)
    assert rendered == (
        "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural language."
        "\n<</SYS>>\n\n<im_start><image><im_end>\none? [/INST] It is [SEG]. </s><s>[INST] two? [/INST]"
    )
    system = {"role": "system", "content": "Be brief."}
    assert processor.apply_chat_template([system, *messages], chat_template=LLAMA_2_CHAT_TEMPLATE) == re.sub(
        r"You are a.*language\.", "Be brief.", rendered
    )


def test_tokenizer_of_another_checkpoint_is_refused(tmp_path, make_source):
    source, clip = make_source("lisa")
    added = json.loads((source / "added_tokens.json").read_text())
    (source / "added_tokens.json").write_text(json.dumps(added | {"<more>": max(added.values()) + 1}))
    with pytest.raises(ValueError, match=r"gives <image> the id \d+, but the weights have \d+ words"):
        convert(source, tmp_path / "converted", clip=clip)


def test_tokenizer_without_seg_is_refused(tmp_path, make_source):
    source, clip = make_source("lisa")
    (source / "added_tokens.json").unlink()
    with pytest.raises(ValueError, match=r"has no \[SEG\]"):
        convert(source, tmp_path / "converted", clip=clip)


def test_image_processing_is_the_clips(tmp_path, make_source):
    source, clip = make_source("glamm")
    convert(source, tmp_path / "converted", clip=clip)
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "converted")
    expected = CLIPImageProcessor.from_pretrained(clip)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8))
    got = processor(image, "the dog")["pixel_values"]
    torch.testing.assert_close(got, expected(image, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("checkpoint", None, "USER: "),
        ("checkpoint", "llava_llama_2", "[INST] "),
        ("LISA-13B-llama2-v1", None, "[INST] "),
        ("LISA-13B-llama2-v1", "llava_v1", "USER: "),
    ],
)
def test_form_of_conversations_follows_the_name_or_the_option(tmp_path, make_source, name, option, expected):
    source, clip = make_source("lisa")
    source = source.rename(source.parent / name)
    report = convert(source, tmp_path / "converted", clip=clip, conversation=option)
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "converted")
    assert expected in processor.apply_chat_template([{"role": "user", "content": "hello"}])
    assert report["conversation"] == ("llava_v1" if expected == "USER: " else "llava_llama_2")
