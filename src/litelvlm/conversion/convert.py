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
"""From a checkpoint of others to a folder that `AutoModel.from_pretrained(..., trust_remote_code=True)` loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from ..configuration.configuration_litelvlm import TEXTLESS_TOWERS, check_choice
from ..hub import check_reachable, is_hub_id, public_name
from ..modeling.chat_litelvlm import PALIGEMMA_CHAT_TEMPLATE
from ..modeling.damage_litelvlm import read_json
from ..modeling.guide_litelvlm import EXTERNAL_CLIP
from ..modeling.hub_litelvlm import export_code
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from . import open_clip
from .checkpoint_config import build_config, generation_config
from .destination import check_free, making
from .key_mappings import KEY_MAPPINGS, LLAVA, check_merged, detect_layout
from .plan import plan_tensors
from .presets import CONVERSATIONS, PRESETS
from .processors import build_processor, guess_conversation, has_tokenizer, load_tokenizer
from .weights import CheckpointReader, write_shards

REPORT = "conversion_report.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")


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
        source (`str` or `Path`): folder or Hub id of LISA, one in its layout, GLaMM (official layout), LLaVA,
            VipLLaVA, LLaVA-NeXT, LLaVA-OneVision, PaliGemma, Qwen2-VL or Qwen2.5-VL (Transformers').
        dest (`str` or `Path`): the folder to make; must not exist.
        kind (`str`, *optional*): a name in `KEY_MAPPINGS`; found out by default.
        clip (`str` or `Path`, *optional*): folder or Hub id of the CLIP or SigLIP that the vision tower comes from, in
            Transformers' format, or for Qwen-VL of any CLIP; or an OpenCLIP model as
            `"open_clip:ARCHITECTURE/TAG"`, `"hf-hub:ORG/NAME"` or `"local-dir:FOLDER"`; the one that the source's
            configuration names by default. Gives the guide, and the vision tower where the source has none.
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
            not have or that it misses, a pickle with more than tensors, a disk that is too small, another conversion
            at work on the same folder.
        OSError: the disk became full.
    """
    dest = Path(dest)
    check_free(dest)
    check_choice("dtype", dtype, DTYPES)
    if kind is not None:
        check_choice("kind", kind, KEY_MAPPINGS)
    if conversation is not None:
        check_choice("conversation", conversation, CONVERSATIONS)
    folder = fetch(source)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no config.json; it is no checkpoint.")
    source_config = read_json(folder / "config.json")
    checkpoint = CheckpointReader(folder)
    check_merged(checkpoint.meta)
    names = [str(source), str(source_config.get("_name_or_path"))]
    mapping = KEY_MAPPINGS[kind] if kind else detect_layout(source_config, checkpoint.meta, names)
    for name, value in (("conversation", conversation), ("seg_token_id", seg_token_id)):
        if mapping is LLAVA and value is not None:
            raise ValueError(
                f"`{name}` is {value!r}, but a {source_config.get('model_type')!r} has prompts of its own and no "
                "[SEG]; leave it out."
            )
    if conversation is None:
        conversation = guess_conversation(mapping, names)
    image_marks = source_config.get("mm_use_im_start_end", True)
    clip_name = clip or source_config.get("vision_tower") or source_config.get("mm_vision_tower")
    tower = (source_config.get("vision_config") or {}).get("model_type")
    if clip_name is None and tower in TEXTLESS_TOWERS:
        clip_name = EXTERNAL_CLIP
    if clip_name is None:
        raise ValueError(
            "The configuration names no CLIP; give the one that the vision tower comes from with `--clip`."
        )
    if clip is None and not Path(clip_name).exists() and not is_hub_id(str(clip_name)):
        raise ValueError(
            f"The configuration names the CLIP {clip_name!r}, a folder of another machine; give its folder or Hub id "
            "here with `--clip`, such as openai/clip-vit-large-patch14."
        )
    with making(dest) as incomplete:
        clip_folder = fetch_clip(clip_name, incomplete / "clip")
        tokenizer_name = tokenizer or (folder if has_tokenizer(folder) else None)
        text_tokenizer = None
        if tokenizer_name is not None:
            text_tokenizer = load_tokenizer(fetch(tokenizer_name), mapping, image_marks)

        clip_config = open_clip.read_clip_config(clip_folder)
        config = build_config(source_config, checkpoint.meta, mapping, clip_config, text_tokenizer, seg_token_id)
        config.dtype = _dtype(dtype, source_config)
        config.architectures = [LiteLVLMForSegmentation.__name__]
        with torch.device("meta"):
            model = LiteLVLMForSegmentation(config).to(config.dtype)
        like = _untied(model)
        plan = plan_tensors(checkpoint, CheckpointReader(clip_folder), mapping, like, config)

        report = {
            "source": public_name(source),
            "kind": mapping.name,
            "clip": public_name(clip_name),
            "conversation": conversation,
            "dtype": str(config.dtype).removeprefix("torch."),
            "num_parameters": sum(tensor.numel() for tensor in like.values()),
            "vision_tower": plan.vision_tower,
            "dropped": plan.dropped,
            "left_out": PRESETS[mapping.name].left_out if mapping.name in PRESETS else None,
            "processor": text_tokenizer is not None,
            "tensors": write_shards(plan.sources, like, incomplete, max_shard_size),
        }
        if text_tokenizer is not None:
            processor = build_processor(
                mapping, conversation, image_marks, folder, clip_folder, text_tokenizer, config
            )
            processor.save_pretrained(incomplete)
            if processor.chat_template == PALIGEMMA_CHAT_TEMPLATE:  # not the checkpoint's: it has none
                report["conversation"] = "paligemma"
        config.save_pretrained(incomplete)
        generation_config(config).save_pretrained(incomplete)
        export_code(incomplete)
        (incomplete / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(incomplete / "clip", ignore_errors=True)
    return report


def fetch(name: str | Path) -> Path:
    """A folder as it is, or the folder of a Hub repository's files, without those of other frameworks."""
    if Path(name).is_dir():
        return Path(name)
    check_reachable(name)
    patterns = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja", "*.txt"]
    return Path(snapshot_download(str(name), allow_patterns=patterns))


def fetch_clip(name: str | Path, folder: Path) -> Path:
    """As [`fetch`]; an OpenCLIP model is written into `folder` in the form that conversion reads."""
    if not str(name).startswith(open_clip.PREFIXES):
        return fetch(name)
    if str(name).startswith("hf-hub:"):
        check_reachable(str(name).removeprefix("hf-hub:"))
    open_clip.save_open_clip(str(name), folder)
    return folder


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
