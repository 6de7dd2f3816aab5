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
"""A preset around a tiny model."""

from collections.abc import Callable

import pytest
import torch

from litelvlm.benchmark.presets import Preset
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation


@pytest.fixture
def tiny_preset() -> Callable[[LiteLVLMForSegmentation], Preset]:
    """`tiny_preset(model)` asks the model a prompt of 8 text tokens and lets it answer with 3."""
    return lambda model: Preset(
        lambda: model.config, torch.float32, num_text_tokens=8, num_new_tokens=3, num_tokens_after_seg=1
    )
