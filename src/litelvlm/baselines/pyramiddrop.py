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
"""PyramidDrop: in three layers, the language model keeps ever fewer visual tokens, by its last token's attention."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import register_layerwise_pruner
from .layerwise import run_in_segments, score_by_last_token

_LAYERS, _OF_LAYERS = (8, 16, 24), 32


@register_layerwise_pruner(
    "pyramiddrop",
    source='Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy '
    'Reduction", arXiv 2410.17247',
)
def run_pyramiddrop(
    language_model: Any,
    is_image: torch.Tensor | None,
    num_retained_tokens: int,
    config: LiteLVLMConfig,
    **inputs: Any,
) -> tuple[Any, torch.Tensor | None]:
    """
    In three layers of the language model, the visual tokens that the prompt's last token attends to most.

    From layers 8, 16 and 24 of 32 on, shares r, r^2 and r^3 of the visual tokens are left; published is r = 0.5.
    Other depths are cut at the same shares of their layers, the first at layer 1 or later. Attention is that of the
    layer that the tokens are about to enter, averaged over heads; the highest stay, in raster order.

    K is the mean over the layers from the first cut on, which gives r: 168 of 576 tokens for the published one. The
    first quarter of the layers sees all tokens, so that the mean over all layers, which [`average_tokens`] gives, is
    never less than a quarter of the tokens (270 of 576 for the published r), and could not be K for small budgets.

    Deviations: tokens keep their position ids, whatever `config.position_mode`, where the original numbers them anew;
    shares are rounded to the nearest count, at least 1, and not down; in a teacher-forced pass the last token is the
    answer's.

    Arguments, returned values and errors as in [`run_in_segments`]; a language model of fewer than 4 layers is a
    ValueError.
    """
    cuts = pyramiddrop_cuts(num_retained_tokens, config)
    num_visual = config.num_patches
    return run_in_segments(language_model, is_image, cuts, score_by_last_token, num_visual, scores_at=0, **inputs)


def pyramiddrop_cuts(num_retained_tokens: int, config: LiteLVLMConfig) -> list[tuple[int, int]]:
    """The layers from which on fewer visual tokens are seen, and how many: `[(layer, count), ...]`."""
    num_layers = config.get_text_config().num_hidden_layers
    if num_layers <= len(_LAYERS):
        raise ValueError(
            f"The language model has {num_layers} layers, but PyramidDrop prunes in three of them, with one before: "
            "it needs 4 or more."
        )
    layers: list[int] = []
    for layer in _LAYERS:
        layers.append(max(round(layer * num_layers / _OF_LAYERS), layers[-1] + 1 if layers else 1))
    first, second, third = (until - layer for layer, until in pairwise([*layers, num_layers]))
    share = num_retained_tokens / config.num_patches
    # third r^3 + second r^2 + first r rises with r, so that one root is positive
    ratio = np.roots([third, second, first, -share * (first + second + third)]).real.max()
    return [(layer, max(1, round(config.num_patches * ratio**power))) for power, layer in enumerate(layers, 1)]


__all__ = ["pyramiddrop_cuts", "run_pyramiddrop"]
