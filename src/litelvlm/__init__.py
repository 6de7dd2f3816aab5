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
LiteLVLM: fast pixel grounding in large vision-language models by training-free visual token pruning.

Importing the package makes its models known to Transformers, so that `AutoModel`, `AutoProcessor` and `pipeline` load
LiteLVLM checkpoints with the installed code and without `trust_remote_code`.
"""

import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names of the face, and the module that each is looked up in when it is asked for
_FACE = {
    "EXAMPLE_IMAGE": "tiny",
    "LiteLVLMConfig": "configuration.configuration_litelvlm",
    "LiteLVLMForConditionalGeneration": "modeling.modeling_litelvlm",
    "LiteLVLMForSegmentation": "modeling.modeling_litelvlm",
    "LiteLVLMMaskDecoder": "modeling.mask_decoder_litelvlm",
    "LiteLVLMModel": "modeling.modeling_litelvlm",
    "LiteLVLMProcessor": "modeling.processing_litelvlm",
    "ReferringSegmentationPipeline": "modeling.pipeline_litelvlm",
    "TINY_MODEL": "tiny",
    "average_tokens": "baselines",
    "from_backbone": "backbone",
    "list_pruning_methods": "modeling.pruning_litelvlm",
    "load_tiny": "tiny",
    "segment_video": "video",
}

if TYPE_CHECKING:
    from .backbone import from_backbone
    from .baselines import average_tokens
    from .configuration.configuration_litelvlm import LiteLVLMConfig
    from .modeling.mask_decoder_litelvlm import LiteLVLMMaskDecoder
    from .modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation, LiteLVLMModel
    from .modeling.pipeline_litelvlm import ReferringSegmentationPipeline
    from .modeling.processing_litelvlm import LiteLVLMProcessor
    from .modeling.pruning_litelvlm import list_pruning_methods
    from .tiny import EXAMPLE_IMAGE, TINY_MODEL, load_tiny
    from .video import segment_video


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_FACE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])


def _is_command_line() -> bool:
    """Whether the `litelvlm` command or `python -m litelvlm` imports this."""
    if sys.argv[:1] == ["-m"]:  # so it reads while Python looks for the module
        return ("-m", "litelvlm") in pairwise(sys.orig_argv)
    return Path(*sys.argv[:1]).stem == "litelvlm"


# Transformers takes seconds to import: a command that needs it registers when it runs, and `--help` never does
if not _is_command_line():
    from . import registration  # noqa: F401

__all__ = [
    "EXAMPLE_IMAGE",
    "TINY_MODEL",
    "LiteLVLMConfig",
    "LiteLVLMForConditionalGeneration",
    "LiteLVLMForSegmentation",
    "LiteLVLMMaskDecoder",
    "LiteLVLMModel",
    "LiteLVLMProcessor",
    "ReferringSegmentationPipeline",
    "average_tokens",
    "from_backbone",
    "list_pruning_methods",
    "load_tiny",
    "segment_video",
]
