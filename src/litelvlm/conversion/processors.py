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
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from .key_mappings import LLAVA, KeyMapping
from .presets import IMAGE_MARKS, PRESETS

IMAGE_TOKEN, SEG_TOKEN = "<image>", "[SEG]"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files of a tokenizer."""
    return any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))


def load_tokenizer(folder: Path, mapping: KeyMapping, image_marks: bool = True) -> Any:
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
    needed = (SEG_TOKEN, PRESETS[mapping.name].rejection_token, *(IMAGE_MARKS if image_marks else ()))
    if missing := [token for token in needed if token is not None and token not in added]:
        raise ValueError(
            f"The tokenizer in {str(folder)!r} has no {', '.join(missing)}; name the checkpoint's own with "
            "`--tokenizer`."
        )
    if IMAGE_TOKEN not in added:
        number = len(slow_rules)
        rules["added_tokens"].append(added[SEG_TOKEN] | {"id": number, "content": IMAGE_TOKEN})
    own = {slow_rules.bos_token, slow_rules.eos_token, slow_rules.unk_token}
    for token in rules["added_tokens"]:
        if token["content"] not in own:
            # [SEG] and phrases' marks are part of what an answer says; the image's marks are not
            special = token["content"] in (IMAGE_TOKEN, *IMAGE_MARKS)
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
    mapping: KeyMapping,
    conversation: str | None,
    image_marks: bool,
    source: Path,
    clip: Path,
    tokenizer: Any,
    config: LiteLVLMConfig,
) -> LiteLVLMProcessor:
    """The processor of a converted checkpoint; `source` and `clip` are folders."""
    if mapping is LLAVA:
        processor = LiteLVLMProcessor.from_backbone(source, clip)
        processor.tokenizer = tokenizer
        return processor
    preset = PRESETS[mapping.name]
    return LiteLVLMProcessor(
        CLIPImageProcessor.from_pretrained(clip),
        tokenizer,
        AutoTokenizer.from_pretrained(clip, trust_remote_code=False),
        chat_template=preset.chat_template(str(conversation), image_marks),
        num_image_tokens=config.num_patches_per_side**2,
        question_template=preset.question_template,
        guide_form=preset.guide_form,
        rejection_token=preset.rejection_token,
    )


__all__ = ["build_processor", "has_tokenizer", "load_tokenizer"]
