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
From the 16 codes of PaliGemma's <seg> tokens to a mask: the decoder of a VQ-VAE on segmentation masks, as big_vision
published it (arXiv 2407.07726, section 3.2.2; arXiv 2301.02229).
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .locations_litelvlm import NUM_CODES

_CODES_PER_SIDE = 4
_NUM_RESIDUALS = 2


# @auto_docstring would replace what is said below.  trf-ignore: TRF010  trf-ignore: TRF057
class LiteLVLMMaskDecoderConfig(PreTrainedConfig):
    r"""
    Configuration of a [`LiteLVLMMaskDecoder`]; by default the sizes of the published one.

    Args:
        num_codes (`int`, *optional*, defaults to 128): of the codebook, one for each <seg> token or more.
        code_size (`int`, *optional*, defaults to 512): width of their embeddings.
        hidden_size (`int`, *optional*, defaults to 128): channels of the residual blocks, which the later layers halve
            down to an eighth; at least 8.
    """

    model_type = "litelvlm_mask_decoder"

    num_codes: int = 128
    code_size: int = 512
    hidden_size: int = 128


class LiteLVLMMaskDecoderResidual(nn.Module):
    """Three convolutions beside what they are added to."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.conv_1 = nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1)
        self.conv_2 = nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1)
        self.conv_3 = nn.Conv2d(hidden_size, hidden_size, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        added = nn.functional.relu(self.conv_1(hidden_states))
        added = nn.functional.relu(self.conv_2(added))
        return hidden_states + self.conv_3(added)


class LiteLVLMMaskDecoder(PreTrainedModel):
    """
    The decoder; `litelvlm convert` makes its folder of the published `.npz` file.

    Raises:
        ValueError: fewer codes than PaliGemma has <seg> tokens, or layers without channels.
    """

    config: LiteLVLMMaskDecoderConfig
    config_class = LiteLVLMMaskDecoderConfig
    main_input_name = "codes"

    def __init__(self, config: LiteLVLMMaskDecoderConfig):
        super().__init__(config)
        for name, least in {"num_codes": NUM_CODES, "code_size": 1, "hidden_size": 8}.items():
            value = getattr(config, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` is {value!r}; allowed are whole numbers of at least {least}.")
        size = config.hidden_size
        self.embedding = nn.Embedding(config.num_codes, config.code_size)
        self.conv_in = nn.Conv2d(config.code_size, size, kernel_size=1)
        self.residuals = nn.ModuleList(LiteLVLMMaskDecoderResidual(size) for _ in range(_NUM_RESIDUALS))
        channels = [size, size, size // 2, size // 4, size // 8]
        self.upsamplings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1)
            for before, after in pairwise(channels)
        )
        self.conv_out = nn.Conv2d(channels[-1], 1, kernel_size=1)
        self.post_init()

    def forward(self, codes: torch.LongTensor) -> torch.Tensor:
        """
        Args:
            codes (`torch.LongTensor` of shape `(M, 16)`): of M masks, in raster order.

        Returns:
            `torch.Tensor` of shape `(M, 64, 64)`: from about -1, outside, to about 1, inside; 0 is the edge.
        """
        embeds = self.embedding(codes).unflatten(1, (_CODES_PER_SIDE, _CODES_PER_SIDE)).permute(0, 3, 1, 2)
        hidden_states = nn.functional.relu(self.conv_in(embeds))
        for residual in self.residuals:
            hidden_states = residual(hidden_states)
        for upsampling in self.upsamplings:
            hidden_states = nn.functional.relu(upsampling(hidden_states))
        return self.conv_out(hidden_states)[:, 0]


# A saved folder brings this file along
LiteLVLMMaskDecoderConfig.register_for_auto_class()
LiteLVLMMaskDecoder.register_for_auto_class("AutoModel")

__all__ = ["LiteLVLMMaskDecoder", "LiteLVLMMaskDecoderConfig"]
