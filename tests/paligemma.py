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
"""Tiny random PaliGemmas of both generations, with their processors and the SigLIP that their towers come from."""

from pathlib import Path
from typing import Any

from transformers import (
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from .siglip import NUM_PATCHES, gemma_tokenizer, randomise, siglip_vision, take_tower, write_siglip

# Fewer tokens than any prompt has, so that the second generation's sliding layers do not see all of it
SLIDING_WINDOW = 8
TEXT = {
    "gemma": {"num_key_value_heads": 1},
    "gemma2": {"num_key_value_heads": 2, "sliding_window": SLIDING_WINDOW, "query_pre_attn_scalar": 16}
    # Low enough to change what is near it
    | {"final_logit_softcapping": 4.0},
}


def prompt_tokenizer() -> GemmaTokenizer:
    """Gemma's, with a token that joins the end of a question and the beginning of an answer, if they are one text."""
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *map(chr, range(33, 127)), "\na"]
    return GemmaTokenizer(vocab={word: i for i, word in enumerate(letters)}, merges=[("\n", "a")])


def write_paligemma(kind: str, folder: Path, image_size: int = 32) -> tuple[Any, Any]:
    """
    A PaliGemma with the language model `kind` and its processor, saved in `folder / "lvlm"`, and a SigLIP for images
    of its size in `folder / "siglip"`.
    """
    (folder / "siglip").mkdir(parents=True)
    siglip = write_siglip(folder / "siglip", gemma_tokenizer(), image_size=image_size)
    square = {"height": image_size, "width": image_size}
    num_patches = NUM_PATCHES * (image_size // 32) ** 2
    image_processor = SiglipImageProcessor(size=square, image_seq_length=num_patches)
    processor = PaliGemmaProcessor(image_processor, prompt_tokenizer())
    tokenizer = processor.tokenizer
    text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    text |= {"model_type": kind, "vocab_size": len(tokenizer), "head_dim": 12, "pad_token_id": tokenizer.pad_token_id}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id} | TEXT[kind]
    config = PaliGemmaConfig(
        # As on the Hub: the whole tower of its SigLIP
        vision_config=siglip_vision(num_hidden_layers=3, image_size=image_size),
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=48,
        hidden_size=48,
        vocab_size=len(tokenizer),
    )
    lvlm = randomise(PaliGemmaForConditionalGeneration(config))
    take_tower(lvlm, siglip)
    lvlm.save_pretrained(folder / "lvlm")
    processor.save_pretrained(folder / "lvlm")
    return lvlm, processor
