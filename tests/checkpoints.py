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
"""Tiny random checkpoints in the layouts of others, with tokenizers, and the ids their own code made of a prompt."""

import json
import re
import shutil
from dataclasses import dataclass
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


# Tokens that were added to SentencePiece's, of the official checkpoints
ADDED = {"lisa": ["[SEG]", "<im_start>", "<im_end>"], "glamm": ["<im_start>", "<im_end>", "[SEG]", "<p>", "</p>"]}


@dataclass(frozen=True)
class Layout:
    """
    Args:
        architecture (`str`): the class that the official code saves.
        clip (`str`): which golden CLIP gives the vision tower: "lisa" is L/14 at 224 pixels, "glamm" at 336.
        projector (`str`): "linear" or "mlp2x_gelu".
        added (`tuple[str, ...]`): the tokens that follow SentencePiece's, in the order of their ids.
        name (`str`): of the folder.
    """

    architecture: str
    clip: str
    projector: str
    added: tuple[str, ...]
    name: str = "checkpoint"


LAYOUTS = {
    "sesame": Layout("SESAMEForCausalLM", "glamm", "mlp2x_gelu", ("[SEG]", "<im_start>", "<im_end>")),
    # LLaVA-Lightning's tokenizer brings the image's tokens with it
    "gsva": Layout(
        "LisaGSVAForCausalLM", "lisa", "linear", ("<im_patch>", "<im_start>", "<im_end>", "[SEG]", "[REJ]")
    ),
    # Its class is LISA's; only its name tells
    "lisa-plus": Layout(
        "LISAForCausalLM", "lisa", "mlp2x_gelu", ("[SEG]", "<im_start>", "<im_end>"), name="LISA_Plus_7b"
    ),
    "read": Layout("READForCausalLM", "glamm", "mlp2x_gelu", ("[SEG]", "<im_start>", "<im_end>")),
}


def write_checkpoint(kind: str, folder: Path) -> tuple[Path, Path]:
    """Folders of a checkpoint and of its CLIP; SAM's keys and shapes are those of the official LISA's code."""
    if kind in ADDED:
        return _copy_golden(kind, folder)
    layout = LAYOUTS[kind]
    golden = GOLDEN / "lisa_tiny" / "checkpoint"
    source = folder / layout.name
    source.mkdir()
    generator = torch.Generator().manual_seed(sum(map(ord, kind)))
    weights = {}
    for path in sorted(golden.glob("*.bin")):
        for name, value in torch.load(path, weights_only=True).items():
            weights[name] = value if name.endswith("inv_freq") else _like(value, generator)
    if layout.projector == "mlp2x_gelu":
        first = {name: weights.pop(f"model.mm_projector.{name}") for name in ("weight", "bias")}
        width = len(first["bias"])
        weights |= {f"model.mm_projector.0.{name}": value for name, value in first.items()}
        weights["model.mm_projector.2.weight"] = _random((width, width), generator)
        weights["model.mm_projector.2.bias"] = _random((width,), generator)
    num_words = write_tokenizer(source, layout.added)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = _random((num_words, weights[name].shape[1]), generator)
    names = list(weights)
    shards = {f"pytorch_model-{i + 1:05}-of-00002.bin": names[i::2] for i in range(2)}
    for file, held in shards.items():
        torch.save({name: weights[name] for name in held}, source / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = json.loads((golden / "config.json").read_text())
    config |= {"architectures": [layout.architecture], "vocab_size": num_words, "mm_projector_type": layout.projector}
    (source / "config.json").write_text(json.dumps(config))
    clip = Path(shutil.copytree(GOLDEN / f"{layout.clip}_tiny" / "clip", folder / "clip"))
    write_guide_tokenizer(clip)
    return source, clip


def _copy_golden(kind: str, folder: Path) -> tuple[Path, Path]:
    """What the official implementation of LISA or GLaMM saved, with tokenizers."""
    source = Path(shutil.copytree(GOLDEN / f"{kind}_tiny" / "checkpoint", folder / "checkpoint"))
    clip = Path(shutil.copytree(GOLDEN / f"{kind}_tiny" / "clip", folder / "clip"))
    num_words = write_tokenizer(source, ADDED[kind])
    # One embedding for each word
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": num_words}))
    for path in source.glob("*.bin"):
        tensors = torch.load(path, weights_only=True)
        for name in {"model.embed_tokens.weight", "lm_head.weight"} & set(tensors):
            tensors[name] = torch.randn(num_words, tensors[name].shape[1]).half()
        torch.save(tensors, path)
    write_guide_tokenizer(clip)
    return source, clip


def _like(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other values of the same mean and spread."""
    value = value.float()
    noise = torch.randn(value.shape, generator=generator)
    return (value.mean() + value.std(correction=0) * noise).half()


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return (0.2 * torch.randn(shape, generator=generator)).half()


def write_tokenizer(folder: Path, added: tuple[str, ...] | list[str]) -> int:
    """A SentencePiece tokenizer as early Transformers saved it; gives its number of words."""
    corpus = folder / "corpus.txt"
    turn = "USER: Can you segment the dog in this image? ASSISTANT: Sure, it is ."
    corpus.write_text("\n".join([SYSTEM, turn] * 30))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    corpus.unlink()
    number = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).get_piece_size()
    (folder / "added_tokens.json").write_text(json.dumps({token: number + i for i, token in enumerate(added)}))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 512, "padding_side": "right"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return number + len(added)


def write_guide_tokenizer(clip: Path) -> None:
    """Gives a CLIP without a tokenizer the embedded model's, and as many words."""
    guide = PreTrainedTokenizerFast.from_pretrained(TINY_MODEL / "guide_tokenizer")
    guide.save_pretrained(clip)
    weights, config = load_file(clip / "model.safetensors"), json.loads((clip / "config.json").read_text())
    embedding = "text_model.embeddings.token_embedding.weight"
    weights[embedding] = torch.randn(len(guide), weights[embedding].shape[1]).half()
    save_file(weights, clip / "model.safetensors")
    text = {"vocab_size": len(guide), "eos_token_id": guide.eos_token_id, "bos_token_id": guide.bos_token_id}
    config["text_config"] |= text | {"pad_token_id": guide.pad_token_id}
    (clip / "config.json").write_text(json.dumps(config))


def reference_ids(folder: Path, prompt: str, added: tuple[str, ...] | list[str]) -> list[int]:
    """
    How early Transformers tokenised with SentencePiece: white space beside an added token is dropped, every piece of
    text between two tokens is encoded by itself, with a space mark before it; the image splits the prompt.
    """
    model = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    numbers = {token: model.get_piece_size() + i for i, token in enumerate([*added, "<image>"])}
    ids = [model.bos_id()]
    for chunk in re.split("(<image>)", prompt):
        pieces = re.split("(" + "|".join(map(re.escape, [*numbers, "</s>", "<s>"])) + ")", chunk)
        for i, piece in enumerate(pieces):
            if piece in numbers:
                ids.append(numbers[piece])
            elif piece in ("<s>", "</s>"):
                ids.append({"<s>": model.bos_id(), "</s>": model.eos_id()}[piece])
            else:
                if i > 0 and pieces[i - 1] in numbers:
                    piece = piece.lstrip()
                if i + 1 < len(pieces) and pieces[i + 1] in numbers:
                    piece = piece.rstrip()
                ids += model.encode(piece) if piece else []
    return ids
