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
"""Checkpoints in the layouts in which others publish them, with random weights and tokenizers."""

import json
import shutil
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from litelvlm import TINY_MODEL

GOLDEN = Path(__file__).parent / "golden"
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
ADDED = {"lisa": ["[SEG]", "<im_start>", "<im_end>"], "glamm": ["<im_start>", "<im_end>", "[SEG]", "<p>", "</p>"]}


def write_checkpoint(kind: str, folder: Path) -> tuple[Path, Path]:
    """A tiny checkpoint of LISA or GLaMM in its official layout, with tokenizers; its folder and that of its CLIP."""
    source = Path(shutil.copytree(GOLDEN / f"{kind}_tiny" / "checkpoint", folder / "checkpoint"))
    clip = Path(shutil.copytree(GOLDEN / f"{kind}_tiny" / "clip", folder / "clip"))
    (folder / "corpus.txt").write_text(
        "\n".join([SYSTEM, "USER: Can you segment the dog in this image? ASSISTANT: Sure, it is ."] * 30)
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(source / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    number = sentencepiece.SentencePieceProcessor(str(source / "tokenizer.model")).get_piece_size()
    added = {token: number + i for i, token in enumerate(ADDED[kind])}
    (source / "added_tokens.json").write_text(json.dumps(added))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (source / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 512, "padding_side": "right"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    # One embedding for each word
    num_words = number + len(added)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": num_words}))
    for path in source.glob("*.bin"):
        tensors = torch.load(path, weights_only=True)
        for name in {"model.embed_tokens.weight", "lm_head.weight"} & set(tensors):
            tensors[name] = torch.randn(num_words, tensors[name].shape[1]).half()
        torch.save(tensors, path)
    guide = PreTrainedTokenizerFast.from_pretrained(TINY_MODEL / "guide_tokenizer")
    guide.save_pretrained(clip)
    weights, clip_config = load_file(clip / "model.safetensors"), json.loads((clip / "config.json").read_text())
    embedding = "text_model.embeddings.token_embedding.weight"
    weights[embedding] = torch.randn(len(guide), weights[embedding].shape[1]).half()
    save_file(weights, clip / "model.safetensors")
    text = {"vocab_size": len(guide), "eos_token_id": guide.eos_token_id, "bos_token_id": guide.bos_token_id}
    clip_config["text_config"] |= text | {"pad_token_id": guide.pad_token_id}
    (clip / "config.json").write_text(json.dumps(clip_config))
    return source, clip
