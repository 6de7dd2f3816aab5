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
"""
From a checkpoint of others to a folder that `AutoModel.from_pretrained(..., trust_remote_code=True)` loads.

The folder appears whole or not at all: it is written beside its place, under a name that ends in `.incomplete`, and
renamed when everything is there. What an interrupted run left is removed by the next.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import CLIPConfig, GenerationConfig, LlamaConfig

from ..configuration.configuration_litelvlm import LiteLVLMConfig, OpenCLIPGuideConfig
from ..modeling.hub_litelvlm import export_code
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from . import open_clip
from .key_mappings import CLIP, KINDS, LLAVA, OPEN_CLIP, Kind, detect_kind
from .processors import CONVERSATIONS, build_processor, guess_conversation, has_tokenizer, load_tokenizer
from .weights import CheckpointReader, Source, largest_difference, write_shards

REPORT = "conversion_report.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")

_LLAMA_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def convert(
    source: str | Path,
    dest: str | Path,
    *,
    kind: str | None = None,
    clip: str | Path | None = None,
    tokenizer: str | Path | None = None,
    conversation: str | None = None,
    seg_token_id: int | None = None,
    dtype: str = "auto",
    max_shard_size: str = "5GB",
) -> dict[str, Any]:
    """
    Converts a checkpoint, reading and writing it shard by shard.

    Args:
        source (`str` or `Path`): folder or Hub id of LISA, GLaMM (official layout), LLaVA or VipLLaVA (Transformers').
        dest (`str` or `Path`): the folder to make; must not exist.
        kind (`str`, *optional*): `"lisa"`, `"glamm"` or `"llava"`; found out by default.
        clip (`str` or `Path`, *optional*): folder or Hub id of the CLIP that the vision tower comes from, in
            Transformers' format, or an OpenCLIP model as `"open_clip:ARCHITECTURE/TAG"`, `"hf-hub:ORG/NAME"` or
            `"local-dir:FOLDER"`; the one that the source's configuration names by default. Gives the guide, and the
            vision tower where the source has none.
        tokenizer (`str` or `Path`, *optional*): folder or Hub id of the language model's tokenizer; the source's own
            by default. Without any, the folder holds the model only.
        conversation (`str`, *optional*): the form of conversations that LISA was trained on, `"llava_v1"` or
            `"llava_llama_2"`; the latter by default if a name of the source says "llama2".
        seg_token_id (`int`, *optional*): id of [SEG]; needed only where no tokenizer tells.
        dtype (`str`): of the weights; `"auto"` is what the source's configuration says.
        max_shard_size (`str`): of the files written, such as `"5GB"`.

    Returns:
        The report that also stands in the folder as `conversion_report.json`.

    Raises:
        ValueError: anything that does not fit: an existing folder, an unknown kind, keys or shapes that the model does
            not have or that it misses, a pickle with more than tensors, a full disk.
    """
    dest = Path(dest)
    if dest.exists():
        raise ValueError(f"{str(dest)!r} exists; name a folder that does not, or remove it first.")
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` is {dtype!r}; allowed are {', '.join(DTYPES)}.")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"`kind` is {kind!r}; allowed are {', '.join(KINDS)}.")
    if conversation is not None and conversation not in CONVERSATIONS:
        raise ValueError(f"`conversation` is {conversation!r}; allowed are {', '.join(CONVERSATIONS)}.")
    folder = fetch(source)
    source_config = _read_json(folder / "config.json")
    checkpoint = CheckpointReader(folder)
    found = KINDS[kind] if kind else detect_kind(source_config, checkpoint.meta)
    if conversation is None:
        conversation = guess_conversation(found, [str(source), str(source_config.get("_name_or_path"))])
    clip_name = clip or source_config.get("vision_tower") or source_config.get("mm_vision_tower")
    if clip_name is None:
        raise ValueError(
            "The configuration names no CLIP; give the one that the vision tower comes from with `--clip`."
        )
    dest.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{dest.name}.clip", dir=dest.parent) as temporary:
        clip_folder = fetch_clip(clip_name, Path(temporary))
        clip_config = open_clip.read_clip_config(clip_folder)
        words = tokenizer or (folder if has_tokenizer(folder) else None)
        text_tokenizer = None if words is None else load_tokenizer(fetch(words), found)

        config = build_config(source_config, checkpoint, found, clip_config, text_tokenizer, seg_token_id)
        config.dtype = _dtype(dtype, source_config)
        with torch.device("meta"):
            model = LiteLVLMForSegmentation(config).to(config.dtype)
        like = _untied(model)
        sources, dropped, comparison = plan(checkpoint, CheckpointReader(clip_folder), found, like, config)

        incomplete = dest.with_name(dest.name + ".incomplete")
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir()
        tensors = write_shards(sources, like, incomplete, max_shard_size)
        report = {
            "source": str(source),
            "kind": found.name,
            "clip": str(clip_name),
            "conversation": conversation,
            "dtype": str(config.dtype).removeprefix("torch."),
            "num_parameters": sum(tensor.numel() for tensor in like.values()),
            "vision_tower": comparison,
            "dropped": dropped,
            "processor": text_tokenizer is not None,
            "tensors": tensors,
        }
        if text_tokenizer is not None:
            processor = build_processor(found, conversation, folder, clip_folder, text_tokenizer, config)
            processor.save_pretrained(incomplete)
        generation_config(source_config, config).save_pretrained(incomplete)
        export_code(incomplete)
        (incomplete / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        config.architectures = ["LiteLVLMForSegmentation"]
        config.save_pretrained(incomplete)
        incomplete.rename(dest)
        return report


def fetch(name: str | Path) -> Path:
    """A folder as it is, or a Hub repository's files (without other frameworks' weights)."""
    if Path(name).is_dir():
        return Path(name)
    patterns = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja", "*.txt"]
    return Path(snapshot_download(str(name), allow_patterns=patterns))


def fetch_clip(name: str | Path, folder: Path) -> Path:
    """As [`fetch`]; of an OpenCLIP model, the folder that conversion reads, made in `folder`."""
    if not str(name).startswith(open_clip.PREFIXES):
        return fetch(name)
    open_clip.save_open_clip(str(name), folder)
    return folder


def build_config(
    source: dict[str, Any],
    checkpoint: CheckpointReader,
    kind: Kind,
    clip: CLIPConfig | OpenCLIPGuideConfig,
    tokenizer: Any,
    seg_token_id: int | None,
) -> LiteLVLMConfig:
    """The configuration of the whole, from the source's, the CLIP's and, for SAM, the weights' shapes."""
    if isinstance(clip, OpenCLIPGuideConfig):
        if kind is not LLAVA:
            raise ValueError(
                f"The OpenCLIP model is no plain CLIP, so it cannot give {kind.name} its vision tower; name the CLIP "
                "that the vision tower comes from."
            )
        config = LiteLVLMConfig(backbone_config=source, guide_config=clip.to_dict(), num_retained_tokens=None)
        config.num_retained_tokens = _num_patches(config.backbone_config.vision_config) // 3
        return config
    clip.text_config.projection_dim = clip.vision_config.projection_dim = clip.projection_dim
    guide = clip.text_config.to_dict()
    num_patches = _num_patches(clip.vision_config)
    shared = {"guide_config": guide, "num_retained_tokens": num_patches // 3}  # the paper's 192 of 576
    if kind is LLAVA:
        vision = {**source["vision_config"], "projection_dim": clip.projection_dim}
        return LiteLVLMConfig(backbone_config={**source, "vision_config": vision}, **shared)

    known = {kind.rename(key): tensor for key, tensor in checkpoint.meta.items()}
    if not any(name.startswith("sam.vision_encoder.") for name in known):
        raise ValueError(f"The checkpoint has no SAM under the names of {kind.name}; leave `--kind` to be found out.")
    text = {name: source[name] for name in _LLAMA_FIELDS if source.get(name) is not None}
    vocab_size = known["model.backbone.language_model.embed_tokens.weight"].shape[0]
    # The image's placeholder gets an id: the training code had none in the vocabulary
    text["vocab_size"] = vocab_size + 1
    if tokenizer is not None:
        image_token_id = tokenizer.convert_tokens_to_ids("<image>")
        if image_token_id != vocab_size:
            raise ValueError(
                f"The tokenizer gives <image> the id {image_token_id}, but the weights have {vocab_size} words, so it "
                f"should be {vocab_size}; name the tokenizer that belongs to the checkpoint with `--tokenizer`."
            )
        seg_token_id = tokenizer.convert_tokens_to_ids("[SEG]")
    if seg_token_id is None:
        raise ValueError("There is no tokenizer to tell the id of [SEG]; give `--tokenizer` or `--seg-token-id`.")
    return LiteLVLMConfig(
        backbone_config={
            "model_type": "llava",
            "vision_config": clip.vision_config.to_dict(),
            "text_config": LlamaConfig.from_dict(text).to_dict(),
            "image_token_index": vocab_size,
            "image_seq_length": num_patches,
            "vision_feature_layer": source.get("mm_vision_select_layer", -2),
        },
        projector_type="linear" if "model.backbone.multi_modal_projector.weight" in known else "mlp",
        sam_config=sam_config(known),
        seg_token_id=seg_token_id,
        mask_embedding_size=source.get("out_dim", 256),
        **shared,
    )


def _num_patches(vision_config: Any) -> int:
    return (vision_config.image_size // vision_config.patch_size) ** 2


def sam_config(known: dict[str, torch.Tensor]) -> dict[str, Any]:
    """SAM's sizes, read from the shapes of its image encoder; everything else is SAM's own."""
    prefix = "sam.vision_encoder."
    hidden_size, _, patch_size, _ = known[f"{prefix}patch_embed.projection.weight"].shape
    side = known[f"{prefix}pos_embed"].shape[1]
    num_layers = sum(name.startswith(prefix) and name.endswith("attn.qkv.weight") for name in known)
    # Relative places: 2 * side - 1 in layers that see everything, 2 * window - 1 in the others
    places = [known[f"{prefix}layers.{i}.attn.rel_pos_h"].shape for i in range(num_layers)]
    windows = {(count + 1) // 2 for count, _ in places} - {side}
    return {
        "vision_config": {
            "hidden_size": hidden_size,
            "mlp_dim": known[f"{prefix}layers.0.mlp.lin1.weight"].shape[0],
            "num_hidden_layers": num_layers,
            "num_attention_heads": hidden_size // places[0][1],
            "image_size": side * patch_size,
            "patch_size": patch_size,
            "output_channels": known[f"{prefix}neck.conv1.weight"].shape[0],
            "window_size": windows.pop() if windows else 0,
            "global_attn_indexes": [i for i, (count, _) in enumerate(places) if (count + 1) // 2 == side],
        },
        # segment-anything leaves PyTorch's default in its mask decoder, which Transformers' SAM sets lower
        "mask_decoder_config": {"layer_norm_eps": 1e-5},
    }


def plan(
    checkpoint: CheckpointReader, clip: CheckpointReader, kind: Kind, like: dict[str, torch.Tensor], config: Any
) -> tuple[dict[str, Source], list[dict[str, str]], str]:
    """
    Where each tensor of the model comes from, in the order of the source's files.

    Returns:
        The sources, the keys left out with their reasons, and what was found about the vision tower.

    Raises:
        ValueError: keys that the model does not have, or tensors of the model that nothing fills.
    """
    sources: dict[str, Source] = {}
    dropped, unknown = [], []
    of_clip = OPEN_CLIP if isinstance(config.guide_config, OpenCLIPGuideConfig) else CLIP
    for reader, table in ((checkpoint, kind), (clip, of_clip)):
        for key in reader.meta:
            reason, name = table.why_dropped(key), table.rename(key)
            if reason is not None:
                dropped.append({"key": key, "reason": reason})
            elif name not in like:
                unknown.append(key)
            elif name in sources:  # the vision tower, which a checkpoint's own wins
                dropped.append({"key": key, "reason": f"the checkpoint has its own, {sources[name].key}"})
            else:
                sources[name] = Source(reader, key, _row_adder(name, reader.meta[key], like[name]))
    missing = sorted(set(like) - set(sources))
    if unknown or missing:
        raise ValueError(
            f"As {kind.name}, the checkpoint does not fit: {len(unknown)} of its tensors have no place in the model: "
            f"{', '.join(unknown) or '-'}; {len(missing)} of the model's are in no file: {', '.join(missing) or '-'}."
        )
    tower = [name for name in like if name.startswith("model.backbone.vision_tower.")]
    own = [name for name in tower if sources[name].reader is checkpoint]
    if not own:
        return sources, dropped, "from the CLIP checkpoint"
    if of_clip is OPEN_CLIP:
        return sources, dropped, "from the checkpoint; the guide has one of its own"
    clip_keys = {CLIP.rename(key): key for key in clip.meta}
    distance = largest_difference((sources[name].read() for name in own), (clip.read(clip_keys[name]) for name in own))
    return sources, dropped, f"from the checkpoint; largest difference from the CLIP checkpoint's: {distance:.3g}"


def _row_adder(name: str, have: torch.Tensor, want: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """For the two tensors with a row per word: adds the one of <image>, of zeros, as it is never looked up or said."""
    words = ("model.backbone.language_model.embed_tokens.weight", "lm_head.weight")
    if name not in words or want.shape[0] != have.shape[0] + 1:
        return None
    return partial(torch.nn.functional.pad, pad=(0, 0, 0, 1))


def generation_config(source: dict[str, Any], config: LiteLVLMConfig) -> GenerationConfig:
    """Special tokens, and <image> never said."""
    text = config.get_text_config()
    ids = {name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(**ids, suppress_tokens=[config.image_token_id], max_new_tokens=512)


def _untied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Names and tensors of the state, one name for tensors that are one."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor
    return state


def _dtype(name: str, source: dict[str, Any]) -> torch.dtype:
    if name == "auto":
        name = source.get("torch_dtype") or source.get("dtype") or "float32"
    return getattr(torch, name)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{str(path.parent)!r} holds no {path.name}; it is no checkpoint.")
    return json.loads(path.read_text(encoding="utf-8"))


__all__ = ["convert"]
