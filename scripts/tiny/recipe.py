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
"""The recipe of `litelvlm-tiny`: its sizes, tokenizers and texts, in one place."""

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPImageProcessor, PreTrainedTokenizerFast, SamImageProcessor
from transformers.utils.chat_template_utils import render_jinja_template

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.data.refshapes import KINDS, caption, random_attributes, random_expression, random_scene
from litelvlm.evaluation.protocol import ANSWER
from litelvlm.modeling.chat_litelvlm import LLAVA_V1_CHAT_TEMPLATE, QUESTION_TEMPLATES
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

IMAGE_SIZE = 128  # of CLIP and of SAM; the drawn size in training
PATCH_SIZE = 8  # of both: 256 visual tokens, and masks of 64 x 64
NUM_VISUAL_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
MASK_EMBEDDING_SIZE = 128

ANSWERS = (ANSWER, "Sure, [SEG].", "Sure, it is [SEG].", "Sure, the segmentation result is [SEG].", "[SEG].")
ANSWERS_WITHOUT = ("There is no such object.", "I cannot see that in this image.", "It is not in this image.")
# What the chat template says before the first turn
SYSTEM = render_jinja_template([[]], chat_template=LLAVA_V1_CHAT_TEMPLATE)[0][0].strip()


def corpus(num_scenes: int = 3000, seed: int = 1) -> list[str]:
    """Captions, expressions and conversations to build the vocabularies from."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(num_scenes):
        objects = random_scene(rng, (2, 9))
        texts.append(caption([random_attributes(rng, thing) for thing in objects]))
        for kind in KINDS:
            expression = random_expression(rng, objects, kind)
            if expression:
                question = str(rng.choice(QUESTION_TEMPLATES)).format(expression.text)
                texts.append(f"USER: {question} ASSISTANT: {rng.choice(ANSWERS)}".replace("[SEG]", ""))
    return [SYSTEM, *texts]


def build_guide_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """CLIP's conventions: lower case, 77 tokens, padding by the end token, whose id is none that CLIP treats apart."""
    tokenizer = _byte_level(lower=True)
    special = ["<|startoftext|>", "<|endoftext|>"]
    # Special tokens last: an end token with id 2 would switch Transformers' CLIP to its old pooling
    trainer = trainers.BpeTrainer(vocab_size=510, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(special)
    start, end = (tokenizer.token_to_id(token) for token in special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[(special[0], start), (special[1], end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[1],
        unk_token=special[1],
        model_max_length=77,
        padding_side="right",
    )


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Llama's special tokens, the LVLM's image tokens, and [SEG], which is no special token: it is part of answers."""
    tokenizer = _byte_level(lower=False)
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=760, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    # The system text stands in every prompt: each of its words is to be a token
    tokenizer.train_from_iterator([*texts, *[SYSTEM] * 200], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=1024,
        padding_side="left",
        extra_special_tokens={"image_token": "<image>", "start_token": "<im_start>", "end_token": "<im_end>"},
    )
    fast.add_tokens([AddedToken("[SEG]", special=False, normalized=False)])
    return fast


def _byte_level(lower: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def clip_config(guide_tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """About 3 million parameters."""
    return CLIPConfig(
        projection_dim=128,
        vision_config={
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "hidden_size": 192,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "intermediate_size": 768,
            "hidden_act": "gelu",
            "projection_dim": 128,
        },
        text_config={
            "vocab_size": len(guide_tokenizer),
            "hidden_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "hidden_act": "gelu",
            "max_position_embeddings": 77,
            "projection_dim": 128,
            "bos_token_id": guide_tokenizer.bos_token_id,
            "eos_token_id": guide_tokenizer.eos_token_id,
            "pad_token_id": guide_tokenizer.pad_token_id,
        },
    )


def lvlm_config(clip: CLIPConfig, tokenizer: PreTrainedTokenizerFast) -> LiteLVLMConfig:
    """The whole model around a trained CLIP; about 8 million parameters."""
    return LiteLVLMConfig(
        backbone_config={
            "model_type": "llava",
            "vision_config": clip.vision_config.to_dict(),
            "text_config": {
                "model_type": "llama",
                "vocab_size": len(tokenizer),
                "hidden_size": 192,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "intermediate_size": 512,
                "max_position_embeddings": 1024,
                "initializer_range": 0.06,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            "image_seq_length": NUM_VISUAL_TOKENS,
        },
        guide_config=clip.text_config.to_dict(),
        sam_config={
            "vision_config": {
                "hidden_size": 128,
                "output_channels": MASK_EMBEDDING_SIZE,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
                "window_size": 8,
                "use_rel_pos": False,
                "global_attn_indexes": [1, 3],
                "num_pos_feats": MASK_EMBEDDING_SIZE // 2,
                # SAM's own defaults suit loaded weights: nearly zero weights, and position features of so high a
                # frequency that neighbours have nothing in common
                "initializer_range": 0.08,
                "scale": 1.0,
            },
            "prompt_encoder_config": {
                "hidden_size": MASK_EMBEDDING_SIZE,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
            },
            "mask_decoder_config": {
                "hidden_size": MASK_EMBEDDING_SIZE,
                "mlp_dim": 256,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 32,
            },
            "initializer_range": 0.1,
        },
        # The share of the paper's 192 of 576; what else selects is the package's default
        num_retained_tokens=round(NUM_VISUAL_TOKENS / 3),
        seg_token_id=tokenizer.convert_tokens_to_ids("[SEG]"),
        mask_embedding_size=MASK_EMBEDDING_SIZE,
        # Twice LISA's: the objects are small, and overlap is what is measured
        dice_loss_weight=1.0,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, guide_tokenizer: PreTrainedTokenizerFast) -> LiteLVLMProcessor:
    """The processor of a 7B checkpoint, at the embedded model's sizes."""
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LiteLVLMProcessor(
        # The whole image, as in training: a crop would hide what SAM sees
        CLIPImageProcessor(size=square, crop_size=square, do_center_crop=False),
        tokenizer,
        guide_tokenizer,
        SamImageProcessor(
            size={"longest_edge": IMAGE_SIZE},
            pad_size=square,
            mask_size={"longest_edge": IMAGE_SIZE},
            mask_pad_size=square,
        ),
        num_image_tokens=NUM_VISUAL_TOKENS,
    )
