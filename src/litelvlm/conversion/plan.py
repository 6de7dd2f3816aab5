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
"""Which tensor of which checkpoint becomes which tensor of the model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from transformers import SiglipConfig

from ..configuration.configuration_litelvlm import LiteLVLMConfig, OpenCLIPGuideConfig
from .key_mappings import CLIP, EXTERNAL_CLIP, OPEN_CLIP, SIGLIP, KeyMapping
from .weights import CheckpointReader, Source, largest_difference

_VISION_TOWER = "model.backbone.vision_tower."
_OWN = "in place of the CLIP's the checkpoint has its own"
# The tensors with a line for each word of the vocabulary
_PER_WORD = ("model.backbone.language_model.embed_tokens.weight", "lm_head.weight")


class Plan(NamedTuple):
    """
    Args:
        sources (`dict[str, Source]`): of each tensor of the model, in the order of the source's files.
        dropped (`list[dict[str, str]]`): the keys left out, with their reasons, and what is taken `instead`.
        vision_tower (`str`): where the vision tower comes from.
    """

    sources: dict[str, Source]
    dropped: list[dict[str, str]]
    vision_tower: str


def plan_tensors(
    checkpoint: CheckpointReader,
    clip: CheckpointReader,
    mapping: KeyMapping,
    like: dict[str, torch.Tensor],
    config: LiteLVLMConfig,
) -> Plan:
    """
    Finds the source of each tensor of the model.

    Args:
        checkpoint, clip ([`CheckpointReader`]): of the language model and of the CLIP.
        mapping ([`KeyMapping`]): of the checkpoint's layout.
        like (`dict[str, torch.Tensor]`): the model's tensors, of which shapes are read.
        config ([`LiteLVLMConfig`]): of the model.

    Raises:
        ValueError: keys that the model does not have, or tensors of the model that nothing fills.
    """
    sources: dict[str, Source] = {}
    dropped, unknown = [], []
    clip_mapping = _mapping_of_guide(config)
    for reader, known in ((checkpoint, mapping), (clip, clip_mapping)):
        for key in reader.meta:
            reason, name = known.why_dropped(key), known.rename(key)
            if reason is not None:
                dropped.append({"key": key, "reason": reason})
            elif name not in like:
                unknown.append(key)
            elif name in sources:  # the vision tower: a checkpoint's own wins over the CLIP's
                dropped.append({"key": key, "reason": _OWN, "instead": sources[name].key})
            else:
                sources[name] = Source(reader, key, _word_adder(name, reader.meta[key], like[name]))
    missing = sorted(set(like) - set(sources))
    if unknown or missing:
        raise ValueError(
            f"As {mapping.name}, the checkpoint does not fit: {len(unknown)} of its tensors have no place in the "
            f"model: {', '.join(unknown) or '-'}; {len(missing)} of the model's are in no file: "
            f"{', '.join(missing) or '-'}."
        )
    return Plan(sources, dropped, _origin_of_vision_tower(sources, checkpoint, clip, clip_mapping))


def _mapping_of_guide(config: LiteLVLMConfig) -> KeyMapping:
    if isinstance(config.guide_config, OpenCLIPGuideConfig):
        return OPEN_CLIP
    if config.has_external_guide:
        return EXTERNAL_CLIP
    if not isinstance(config.guide_config, SiglipConfig):
        return CLIP
    depths = config.vision_config.num_hidden_layers, config.guide_config.vision_config.num_hidden_layers
    last = "|".join(map(str, range(*depths)))
    reason = "the vision tower of the LVLM ends before this layer"
    return replace(SIGLIP, dropped=(*SIGLIP.dropped, (rf"^vision_model\.encoder\.layers\.({last})\.", reason)))


def _origin_of_vision_tower(
    sources: dict[str, Source], checkpoint: CheckpointReader, clip: CheckpointReader, clip_mapping: KeyMapping
) -> str:
    if clip_mapping in (OPEN_CLIP, EXTERNAL_CLIP):
        return "from the checkpoint; the guide has one of its own"
    own = [name for name, source in sources.items() if name.startswith(_VISION_TOWER) and source.reader is checkpoint]
    if not own:
        return "from the CLIP checkpoint"
    clip_keys = {clip_mapping.rename(key): key for key in clip.meta}
    # SigLIP's last norm is the guide's, and a tower for larger images has more positions
    own = [
        name
        for name in own
        if name in clip_keys and checkpoint.meta[sources[name].key].shape == clip.meta[clip_keys[name]].shape
    ]
    distance = largest_difference((sources[name].read() for name in own), (clip.read(clip_keys[name]) for name in own))
    return f"from the checkpoint; largest difference from the CLIP checkpoint's: {distance:.3g}"


def _word_adder(name: str, have: torch.Tensor, want: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Where the model has one word more, <image>: adds zeros for it, as they are never looked up nor said."""
    if name not in _PER_WORD or want.shape[0] != have.shape[0] + 1:
        return None
    return partial(torch.nn.functional.pad, pad=(0, 0, 0, 1))


__all__ = ["Plan", "plan_tensors"]
