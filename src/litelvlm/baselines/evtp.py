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
"""EVTP: patches that cover an image in looks and in space."""

import math

import torch

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import PruningSignals, register_token_selector
from .common import farthest_first, unit_rows


@register_token_selector(
    "evtp",
    needs_texts=False,
    source='Zhu et al., "EVTP-IVS: Effective Visual Token Pruning For Unifying Instruction Visual Segmentation In '
    'Multi-Modal Large Language Models", arXiv 2508.11886',
)
def select_evtp(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """
    K patches by greedy k-center: each further one is farthest from its nearest chosen one; in raster order.

    The distance is Euclidean between the patches' features, of length 1, with their coordinates appended.

    Deviations: the scale of the coordinates and the first patch are not known to us; here they run from 0 to 1 over
    the image, and the first patch is the one nearest to the mean.

    Returns:
        `torch.LongTensor` of shape `(B, K)`.

    Raises:
        ValueError: an image in crops, whose patches lie in no one square.
    """
    if signals.patch_mask is not None:
        raise ValueError(
            "`evtp` needs the patches of one square; images in crops or of any size have none; choose another method."
        )
    features = unit_rows(signals.image_features).detach()
    side = math.isqrt(features.shape[1])
    along = torch.linspace(0, 1, side, device=features.device)
    coordinates = torch.cartesian_prod(along, along).expand(features.shape[0], -1, -1)
    points = torch.cat([features, coordinates], dim=-1)  # [B, N, D + 2]
    first = (points - points.mean(dim=1, keepdim=True)).norm(dim=-1).argmin(dim=-1, keepdim=True)
    return farthest_first(torch.cdist(points, points), first, num_retained_tokens)


__all__ = ["select_evtp"]
