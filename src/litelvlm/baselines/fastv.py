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
"""FastV: from an early layer on, the language model keeps the visual tokens that its last token attends to."""

from typing import Any

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import register_layerwise_pruner
from .layerwise import run_in_segments, score_by_last_token

_LAYER = 2


@register_layerwise_pruner(
    "fastv",
    source='Chen et al., "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large '
    'Vision-Language Models", arXiv 2403.06764',
)
def run_fastv(
    language_model: Any,
    is_image: torch.Tensor | None,
    num_retained_tokens: int,
    config: LiteLVLMConfig,
    **inputs: Any,
) -> tuple[Any, torch.Tensor | None]:
    """
    From layer 2 of the language model on, the K visual tokens that the prompt's last token attends to most.

    Layers 0 and 1 see all visual tokens. Attention is that of layer 1, averaged over heads. What is kept stays in
    raster order and keeps its position ids, whatever `config.position_mode`, as in the original. One set is kept for
    the whole answer, also without a cache; in a teacher-forced pass the last token is the answer's. K is what layers
    from 2 on see, and not the mean over layers, which [`average_tokens`] gives.

    Deviation: in a language model of 2 layers, layer 1 is the first that sees K.

    Arguments, returned values and errors as in [`run_in_segments`]; a language model of one layer is a ValueError.
    """
    cuts = fastv_cuts(num_retained_tokens, config)
    return run_in_segments(language_model, is_image, cuts, score_by_last_token, config.num_patches, **inputs)


def fastv_cuts(num_retained_tokens: int, config: LiteLVLMConfig) -> list[tuple[int, int]]:
    """The layers from which on fewer visual tokens are seen, and how many: `[(layer, count)]`."""
    num_layers = config.get_text_config().num_hidden_layers
    if num_layers < 2:
        raise ValueError(
            f"The language model has {num_layers} layer, but FastV needs one before it prunes: 2 or more."
        )
    return [(min(_LAYER, num_layers - 1), num_retained_tokens)]


__all__ = ["fastv_cuts", "run_fastv"]
