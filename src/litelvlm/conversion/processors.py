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
"""Tokenizers and processors of converted checkpoints, token for token as they were trained."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, CLIPImageProcessor, LlamaTokenizer, PreTrainedTokenizerFast

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.chat_litelvlm import LLAVA_V1_CHAT_TEMPLATE
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from .key_mappings import GLAMM, LLAVA, KeyMapping

GLAMM_CHAT_TEMPLATE = LLAVA_V1_CHAT_TEMPLATE.replace(
    "<im_start><image><im_end>\\n", "The <im_start><image><im_end> provides an overview of the picture.\\n"
)
LLAMA_2_CHAT_TEMPLATE = (
    "{% set start = namespace(is_next=true, system='You are a helpful language and vision assistant. You are able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks using natural "
    "language.') %}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'system' and loop.first %}"
    "{% set start.system = parts | map(attribute='text') | join %}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' if start.is_next else '<s>[INST] ' }}"
    "{% if start.is_next %}{{ '<<SYS>>\\n' + start.system + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{% set start.is_next = false %}"
    "{% for part in parts %}{% if part['type'] == 'image' %}"
    "{{ '<im_start><image><im_end>\\n' }}{% endif %}{% endfor %}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{% generation %}{{ ' ' }}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ ' </s>' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('Roles are user and assistant, and system in the first message, not ' "
    "+ message['role'] + '.') }}{% endif %}"
    "{% endfor %}"
)
IMAGE_TOKEN, SEG_TOKEN = "<image>", "[SEG]"
# What LISA was trained on, under the names of the official scripts
CONVERSATIONS = {"llava_v1": LLAVA_V1_CHAT_TEMPLATE, "llava_llama_2": LLAMA_2_CHAT_TEMPLATE}


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files of a tokenizer."""
    return any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))


def load_tokenizer(folder: Path, mapping: KeyMapping) -> Any:
    """
    The language model's tokenizer, with an id for <image>.

    LISA and GLaMM were trained with the SentencePiece tokenizer of early Transformers, which put a space mark before
    every piece of text between added tokens, and stripped white space beside those tokens.
    """
    if mapping is LLAVA:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if importlib.util.find_spec("sentencepiece") is None:
        raise ValueError("Llama's tokenizer file needs SentencePiece to be read: `pip install litelvlm[convert]`.")
    slow_rules = LlamaTokenizer.from_pretrained(folder, legacy=True)
    rules = json.loads(slow_rules.backend_tokenizer.to_str())
    added = {token["content"]: token for token in rules["added_tokens"]}
    if SEG_TOKEN not in added:
        raise ValueError(f"The tokenizer in {str(folder)!r} has no {SEG_TOKEN}; name the checkpoint's own.")
    if IMAGE_TOKEN not in added:
        number = len(slow_rules)
        rules["added_tokens"].append(added[SEG_TOKEN] | {"id": number, "content": IMAGE_TOKEN})
    own = {slow_rules.bos_token, slow_rules.eos_token, slow_rules.unk_token}
    for token in rules["added_tokens"]:
        if token["content"] not in own:
            # [SEG] and phrases' marks are part of what an answer says; the image's marks are not
            special = token["content"] in (IMAGE_TOKEN, "<im_start>", "<im_end>")
            token |= {"lstrip": True, "rstrip": True, "normalized": False, "special": special}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)),
        bos_token=slow_rules.bos_token,
        eos_token=slow_rules.eos_token,
        unk_token=slow_rules.unk_token,
        # As in training: Llama has no token for padding
        pad_token=slow_rules.pad_token or slow_rules.unk_token,
        model_max_length=slow_rules.model_max_length,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )


def guess_conversation(mapping: KeyMapping, names: list[str]) -> str | None:
    """The form of conversations that a checkpoint was trained on; its names tell LISA-13B-llama2 from all others."""
    if mapping is LLAVA:
        return None  # its own chat template is kept
    is_llama_2 = any("llama2" in name.lower().replace("-", "").replace("_", "") for name in names)
    return "llava_llama_2" if is_llama_2 else "llava_v1"


def build_processor(
    mapping: KeyMapping, conversation: str | None, source: Path, clip: Path, tokenizer: Any, config: LiteLVLMConfig
) -> LiteLVLMProcessor:
    """The processor of a converted checkpoint; `source` and `clip` are folders."""
    if mapping is LLAVA:
        processor = LiteLVLMProcessor.from_backbone(source, clip)
        processor.tokenizer = tokenizer
        return processor
    return LiteLVLMProcessor(
        CLIPImageProcessor.from_pretrained(clip),
        tokenizer,
        AutoTokenizer.from_pretrained(clip, trust_remote_code=False),
        chat_template=GLAMM_CHAT_TEMPLATE if mapping is GLAMM else CONVERSATIONS[str(conversation)],
        num_image_tokens=config.num_patches_per_side**2,
    )


__all__ = ["build_processor", "has_tokenizer", "load_tokenizer"]
