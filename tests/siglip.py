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
"""Tiny random SigLIPs with the two kinds of their tokenizers, and what LVLMs make of their towers."""

from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import processors
from transformers import GemmaTokenizer, SiglipConfig, SiglipModel, SiglipTokenizer

VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
NUM_PATCHES, GUIDE_LENGTH = 16, 24
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


def siglip_tokenizer(folder: Path) -> SiglipTokenizer:
    """SigLIP's own kind of tokenizer, on a SentencePiece model of a few words."""
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(["the dog on the left and two cats", "please look at this image"] * 30))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False, minloglevel=2,
        pad_id=-1, unk_id=2, bos_id=-1, eos_id=1, control_symbols=["<pad>"],
    )  # fmt: skip
    return SiglipTokenizer(str(folder / "spiece.model"))


def gemma_tokenizer() -> GemmaTokenizer:
    """SigLIP 2's kind: Gemma's, that adds the end token only, and of itself leaves upper case as it is."""
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    words = {word: i for i, word in enumerate(letters)}
    tokenizer = GemmaTokenizer(vocab=words, merges=[], add_bos_token=False, add_eos_token=True)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def randomise(model: Any) -> Any:
    """The model, in evaluation mode, with values large enough for answers to differ."""
    generator = torch.Generator().manual_seed(len(list(model.parameters())))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def write_siglip(folder: Path, tokenizer: Any, hidden_size: int = 32, image_size: int = 32) -> SiglipModel:
    """A tiny SigLIP of three layers."""
    sizes = VISION | {"hidden_size": hidden_size, "image_size": image_size}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": GUIDE_LENGTH, "num_hidden_layers": 2}
    text |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text |= {name: sizes[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    siglip = randomise(SiglipModel(SiglipConfig(text_config=text, vision_config=sizes | {"num_hidden_layers": 3})))
    siglip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return siglip


def siglip_vision(**changes: Any) -> dict[str, Any]:
    """The tower as LVLMs have it: SigLIP's without the last layer and without the head."""
    return VISION | {"model_type": "siglip_vision_model", "num_hidden_layers": 2, "vision_use_head": False} | changes


def qwen2(tokenizer: Any) -> dict[str, Any]:
    """A tiny language model for the words of a tokenizer."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 2} | sizes | ids


def take_tower(lvlm: Any, siglip: SiglipModel) -> None:
    """As in training: the tower began as SigLIP's, and moved a little."""
    own = lvlm.model.vision_tower.state_dict()
    start = siglip.vision_model.state_dict()
    lvlm.model.vision_tower.load_state_dict({name: start[name] + 0.01 * value for name, value in own.items()})
