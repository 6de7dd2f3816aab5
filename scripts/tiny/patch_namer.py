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
"""A linear probe that names what patches show."""

import torch
from position_waves import patch_positions
from samples import ATTRIBUTE_VALUES
from torch import nn

from litelvlm.data.refshapes import SIZES


class PatchNamer(nn.Linear):
    """
    A linear probe that names each patch's object and tells the patch's own position. Its loss teaches an encoder to
    see; the probe is thrown away.
    """

    def __init__(self, width: int):
        self.sizes = [*(len(known) + 1 for known in ATTRIBUTE_VALUES.values()), 2]
        super().__init__(width, sum(self.sizes))

    def loss(self, patches: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        """
        Cross-entropy, summed over attributes, and the position's error; `patches` of shape `(batch, patches, width)`,
        `names` as of [`patch_names`]. Its means are over patches on objects and over those on none: in one mean the
        many of the background, which are soon named, would leave shapes, the hardest to see, a tenth of the weight.
        """
        *logits, position = self(patches).float().split(self.sizes, dim=-1)
        loss = 0.2 * nn.functional.mse_loss(position, patch_positions().to(position).expand_as(position))
        for i, x in enumerate(logits):
            errors = nn.functional.cross_entropy(x.transpose(1, 2), names[..., i], reduction="none")
            loss = loss + errors[self.on_objects(names)].mean() + 0.3 * errors[names[..., 0] == len(SIZES)].mean()
        return loss

    @staticmethod
    def on_objects(names: torch.Tensor) -> torch.Tensor:
        return (names[..., 0] >= 0) & (names[..., 0] < len(SIZES))

    @torch.no_grad()
    def accuracies(self, patches: torch.Tensor, names: torch.Tensor) -> dict[str, torch.Tensor]:
        """The share of the patches on objects that are named rightly, of each attribute."""
        *logits, _ = self(patches).split(self.sizes, dim=-1)
        return {
            f"{name}_accuracy": (x.argmax(-1) == names[..., i])[self.on_objects(names)].float().mean()
            for i, (name, x) in enumerate(zip(ATTRIBUTE_VALUES, logits, strict=True))
        }
