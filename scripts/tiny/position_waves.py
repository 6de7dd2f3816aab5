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
"""Positions of patches, and the waves that models begin with so that they know at once what is near."""

import math

import torch
from recipe import IMAGE_SIZE, PATCH_SIZE
from torch import nn


def patch_positions() -> torch.Tensor:
    """Column and row of each patch, from -1 to 1, shape `(patches, 2)`."""
    steps = torch.linspace(-1, 1, IMAGE_SIZE // PATCH_SIZE)
    return torch.cartesian_prod(steps, steps).flip(-1)


def position_waves(width: int, amplitude: float) -> torch.Tensor:
    """
    Sines and cosines of each patch's column and row, of wavelengths from 2.5 to 40 patches, to begin a position
    embedding with, shape `(patches, width)`: captions say nothing of positions, so that a contrastive loss would leave
    them out.
    """
    columns_and_rows = (patch_positions() + 1) / 2 * (IMAGE_SIZE // PATCH_SIZE - 1)  # from 0
    angles = columns_and_rows[..., None] * frequencies(width)
    return amplitude * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def frequencies(width: int) -> torch.Tensor:
    """Radians per patch of the waves of a position embedding, shape `(width / 4,)`."""
    return 2 * math.pi / 2.5 / 16 ** torch.linspace(0, 1, width // 4)


def look_at_neighbours(vision_model: nn.Module) -> None:
    """
    Begins each head with attention to the patches at one random offset from the patch itself, up to 2 away, as a
    convolution would: a rotation of a patch's waves shifts its position. Attention that has to find out by itself what
    is near sees shapes late.
    """
    config = vision_model.config
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    waves, used = frequencies(width), size // 4
    chosen = torch.linspace(0, 0.75 * len(waves), used).long()  # which waves a head goes by, of each axis
    for layer in vision_model.encoder.layers:
        attention = layer.self_attn
        for head in range(config.num_attention_heads):
            queries, keys = torch.zeros(size, width), torch.zeros(size, width)
            offset = torch.randint(-2, 3, (2,))
            for axis in range(2):
                sines, cosines = axis * width // 2 + chosen, axis * width // 2 + width // 4 + chosen
                turn = waves[chosen] * offset[axis]
                first, second = (torch.arange(used) + 2 * axis * used, torch.arange(used) + (2 * axis + 1) * used)
                keys[first, sines] = keys[second, cosines] = 1.0
                queries[first, sines], queries[first, cosines] = turn.cos(), turn.sin()
                queries[second, cosines], queries[second, sines] = turn.cos(), -turn.sin()
            of_head = slice(head * size, (head + 1) * size)
            attention.q_proj.weight[of_head] = 1.5 * queries + 0.3 * attention.q_proj.weight[of_head]
            attention.k_proj.weight[of_head] = 1.5 * keys + 0.3 * attention.k_proj.weight[of_head]
