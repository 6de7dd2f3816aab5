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
Makes LiteLVLM known to Transformers: `AutoModel`, `AutoProcessor` and `pipeline` load its checkpoints with the
installed code, without `trust_remote_code`. Importing it registers the baselines too.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from . import baselines
from .configuration.configuration_litelvlm import LiteLVLMConfig
from .modeling.modeling_litelvlm import LiteLVLMForSegmentation
from .modeling.pipeline_litelvlm import ReferringSegmentationPipeline
from .modeling.processing_litelvlm import LiteLVLMProcessor

TASK = "referring-segmentation"

AutoConfig.register("litelvlm", LiteLVLMConfig, exist_ok=True)
AutoModel.register(LiteLVLMConfig, LiteLVLMForSegmentation, exist_ok=True)
AutoModelForImageTextToText.register(LiteLVLMConfig, LiteLVLMForSegmentation, exist_ok=True)
AutoProcessor.register(LiteLVLMConfig, LiteLVLMProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=ReferringSegmentationPipeline, pt_model=AutoModel, type="multimodal"
)

__all__ = ["TASK", "baselines"]
