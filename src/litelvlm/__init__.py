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

Importing the package makes its models known to Transformers, so that `AutoModel` and `AutoProcessor` load LiteLVLM
checkpoints with the installed code and without `trust_remote_code`; `pipeline` does so with
`pipeline_class=litelvlm.ReferringSegmentationPipeline`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from . import baselines
from .configuration.configuration_litelvlm import LiteLVLMConfig
from .modeling.modeling_litelvlm import (
    LiteLVLMForConditionalGeneration,
    LiteLVLMForSegmentation,
    LiteLVLMModel,
)
from .modeling.pipeline_litelvlm import ReferringSegmentationPipeline
from .modeling.processing_litelvlm import LiteLVLMProcessor
from .tiny import EXAMPLE_IMAGE, TINY_MODEL, load_tiny

__version__ = "0.1.0"

AutoConfig.register("litelvlm", LiteLVLMConfig, exist_ok=True)
AutoModel.register(LiteLVLMConfig, LiteLVLMForSegmentation, exist_ok=True)
AutoModelForImageTextToText.register(LiteLVLMConfig, LiteLVLMForSegmentation, exist_ok=True)
AutoProcessor.register(LiteLVLMConfig, LiteLVLMProcessor, exist_ok=True)

__all__ = [
    "EXAMPLE_IMAGE",
    "TINY_MODEL",
    "LiteLVLMConfig",
    "LiteLVLMForConditionalGeneration",
    "LiteLVLMForSegmentation",
    "LiteLVLMModel",
    "LiteLVLMProcessor",
    "ReferringSegmentationPipeline",
    "baselines",
    "load_tiny",
]
