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
"""What differs between the versions of Transformers that are supported (5.17 to 5.24), and nothing else."""

from typing import Any

import torch
from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

# What the key-value cache is called in calls and outputs: Transformers 5.24 renamed it
CACHE_NAMES = ("cache", "past_key_values")
CACHE_NAME = "cache" if hasattr(CausalLMOutputWithPast(), "cache") else "past_key_values"

try:
    from transformers.modeling_utils import slice_logits_to_keep
except ImportError:  # before Transformers 5.24

    def slice_logits_to_keep(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
        """The last so many hidden states of `(B, R, hidden_size)` (0: all), or those at the given indices."""
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return hidden_states[:, kept]


def cache_of(kwargs: dict[str, Any]) -> Cache | None:
    """The key-value cache among a call's arguments, by its new or its old name."""
    return next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)


__all__ = ["CACHE_NAME", "CACHE_NAMES", "cache_of", "slice_logits_to_keep"]
