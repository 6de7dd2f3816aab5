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
"""Tiny random models and batches: every part of a 7B checkpoint, in milliseconds."""

import itertools
import os
import resource
import socketserver
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast, SamImageProcessor

from litelvlm import load_tiny
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

IMAGE_ID, SEG_ID, NUM_PATCHES = 90, 91, 16


def pytest_configure(config: pytest.Config) -> None:
    """Of several workers each has a core, and so have the processes that tests start."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def embedded() -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    """The model that the package carries, and its processor."""
    return load_tiny()


@pytest.fixture
def config_values() -> dict[str, Any]:
    """Arguments of a tiny LiteLVLMConfig: 16 patches, SAM at 64 pixels."""
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    text = {"vocab_size": 99, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    guide = {"vocab_size": 99, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
    sam_vision = {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sam_size = {"image_size": 64, "patch_size": 16}
    sam_decoder = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    return {
        "backbone_config": {
            "model_type": "llava",
            "vision_config": {"model_type": "clip_vision_model", "num_attention_heads": 2, "projection_dim": 16}
            | vision,
            "text_config": {
                "model_type": "llama",
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "pad_token_id": 0,
            }
            | {"bos_token_id": 1, "eos_token_id": 2}
            | text,
            "image_token_index": IMAGE_ID,
            "image_seq_length": NUM_PATCHES,
        },
        "guide_config": {"num_attention_heads": 2, "projection_dim": 16, "bos_token_id": 97, "eos_token_id": 98}
        | guide,
        "sam_config": {
            "vision_config": {"window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 8}
            | sam_size
            | sam_vision,
            "prompt_encoder_config": {"hidden_size": 16, "mask_input_channels": 4} | sam_size,
            "mask_decoder_config": sam_decoder,
        },
        "num_retained_tokens": 6,
        "seg_token_id": SEG_ID,
        "mask_embedding_size": 16,
    }


@pytest.fixture
def make_model(config_values: dict[str, Any]) -> Callable[..., LiteLVLMForSegmentation]:
    """`make_model(**config_overrides)` gives a tiny random model in evaluation mode, the same at every call."""

    def make(**overrides: Any) -> LiteLVLMForSegmentation:
        torch.manual_seed(0)
        model = LiteLVLMForSegmentation(LiteLVLMConfig(**config_values | overrides)).eval()
        # Initialised values are so small that every greedy answer would be the same token
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(3)
        return model

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """`make_batch(batch_size, num_texts)` gives prompts of 30 tokens with one image and up to `num_texts` texts."""

    def make(batch_size: int = 3, num_texts: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        input_ids = torch.randint(3, IMAGE_ID, (batch_size, 30), generator=generator)
        input_ids[:, 4 : 4 + NUM_PATCHES] = IMAGE_ID
        guide_input_ids = torch.randint(3, IMAGE_ID, (batch_size, num_texts, 7), generator=generator)
        guide_input_ids[..., -1] = 98
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": torch.randn(batch_size, 3, 32, 32, generator=generator),
            "guide_input_ids": guide_input_ids,
            "guide_attention_mask": torch.ones_like(guide_input_ids),
            "sam_pixel_values": torch.randn(batch_size, 3, 64, 64, generator=generator),
        }

    return make


def byte_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """One token per byte: no vocabulary to train, and every text comes back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


@pytest.fixture
def processor() -> LiteLVLMProcessor:
    """A processor for the tiny models: 32 and 64 pixels, 16 visual tokens, masks of 16."""
    tokenizer = byte_tokenizer(
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>", "start_token": "<im_start>", "end_token": "<im_end>"},
    )
    tokenizer.add_tokens([AddedToken("[SEG]", special=False, normalized=False)])
    guide = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    square = {"height": 32, "width": 32}
    return LiteLVLMProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square),
        tokenizer,
        byte_tokenizer(**guide, model_max_length=77),
        SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        ),
        num_image_tokens=NUM_PATCHES,
    )


@pytest.fixture
def make_text_model(
    make_model: Callable[..., Any], processor: LiteLVLMProcessor, config_values: dict[str, Any]
) -> Any:
    """`make_text_model(**config_overrides)`: a tiny model with the vocabularies of `processor`."""

    def make(**overrides: Any) -> LiteLVLMForSegmentation:
        tokenizer, guide = processor.tokenizer, processor.guide_tokenizer
        backbone = config_values["backbone_config"]
        text = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "max_position_embeddings": 512}
        text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        guide_ids = {"vocab_size": len(guide), "bos_token_id": guide.bos_token_id, "eos_token_id": guide.eos_token_id}
        values = {
            "backbone_config": backbone
            | {"text_config": backbone["text_config"] | text}
            | {"image_token_index": tokenizer.convert_tokens_to_ids("<image>")},
            "guide_config": config_values["guide_config"] | guide_ids | {"pad_token_id": guide.pad_token_id},
            "seg_token_id": tokenizer.convert_tokens_to_ids("[SEG]"),
        }
        return make_model(**values | overrides)

    return make


@pytest.fixture
def serve_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """
    `serve_bytes(*parts, pause=0)` is the address of a server on loopback that answers any request with these parts, a
    generator's too, waiting between them. `serve_bytes.requests` holds what was asked of all of them.
    """
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def serve(*parts: bytes, pause: float = 0) -> str:
        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                serve.requests.append(self.request.recv(2**16).decode())  # type: ignore[attr-defined]
                try:
                    for part in itertools.chain.from_iterable([p] if isinstance(p, bytes) else p for p in parts):
                        self.request.sendall(part)
                        time.sleep(pause)
                except OSError:  # who asked has had enough
                    pass

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
        server.daemon_threads = True
        server.block_on_close = False
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    serve.requests = []  # type: ignore[attr-defined]
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def small_disk() -> Any:
    """`with small_disk(size)`: writing a file beyond that size fails as it does on a full disk."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
