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
A guide for LVLMs with SigLIP's vision tower, of which they ship neither the pooling head nor the text tower: both come
from the SigLIP (or SigLIP 2 of a fixed resolution) that the tower was made of.
"""

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel, SiglipTextModel, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead


class LiteLVLMSiglipAttention(nn.MultiheadAttention):
    """The attention of SigLIP's pooling head, of patches that are each alone."""

    def forward(self, probe: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        """
        Args:
            probe (`torch.Tensor` of shape `(B, D)`): the learned query.
            patches (`torch.Tensor` of shape `(B, N, D)`): after the vision tower's last norm.

        Returns:
            What the attention gives of each patch alone, `(B, N, D)`; then, over the full width, the query `(B, D)` of
            the probe, and the keys and values of the patches, `(B, N, D)` each.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            nn.functional.linear(inputs, weight, bias)
            for inputs, weight, bias in zip((probe, patches, patches), weights, biases, strict=True)
        )
        # Over one position the softmax is 1
        return self.out_proj(value), query, key, value


class LiteLVLMSiglipHead(SiglipMultiheadAttentionPoolingHead):
    """SigLIP's pooling head, of patches that are each alone."""

    def __init__(self, config: SiglipVisionConfig):
        super().__init__(config)
        self.attention = LiteLVLMSiglipAttention(config.hidden_size, config.num_attention_heads, batch_first=True)

    def forward(self, hidden_state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As [`LiteLVLMSiglipAttention`], with what the whole head makes of each patch alone as the first."""
        alone, *probe_signals = self.attention(self.probe[0].repeat(len(hidden_state), 1), hidden_state)
        return alone + self.mlp(self.layernorm(alone)), *probe_signals


class LiteLVLMSiglipGuide(nn.Module):
    """SigLIP's text tower, and the last norm and the pooling head of its vision tower."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.text_model = SiglipTextModel._from_config(config.text_config)
        vision_config: SiglipVisionConfig = config.vision_config
        self.post_layernorm = nn.LayerNorm(vision_config.hidden_size, eps=vision_config.layer_norm_eps)
        self.head = LiteLVLMSiglipHead(vision_config)

    def take_from(self, siglip: SiglipModel) -> None:
        """Takes the modules of a SigLIP over: no second copy of its weights."""
        self.text_model, self.post_layernorm = siglip.text_model, siglip.vision_model.post_layernorm
        self.head.load_state_dict(siglip.vision_model.head.state_dict(), assign=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T, G)` or `(B, T, sentences, G)`): ids of SigLIP's tokenizer,
                padded to the tower's length G.
            attention_mask (`torch.Tensor` of the same shape): not used here; SigLIP reads the padding too.

        Returns:
            `torch.Tensor` of shape `(B, T, P)`: pooled outputs, not normalised, or the mean of the sentences'
            normalised ones; arbitrary for absent texts.

        Raises:
            ValueError: texts of another length.
        """
        length = self.text_model.config.max_position_embeddings
        if input_ids.shape[-1] != length:
            raise ValueError(
                f"`guide_input_ids` has texts of {input_ids.shape[-1]} tokens, but SigLIP reads texts that are padded "
                f"to {length}; use the processor of this model, whose `guide_length` is {length}."
            )
        text_embeds = self.text_model(input_ids=input_ids.flatten(0, -2)).pooler_output
        text_embeds = text_embeds.unflatten(0, input_ids.shape[:-1])
        return text_embeds if input_ids.ndim == 3 else nn.functional.normalize(text_embeds, dim=-1).mean(dim=2)

    def read_patches(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Args:
            patches (`torch.Tensor` of shape `(B, N, D)`): a hidden state of the vision tower.

        Returns:
            The patches in SigLIP's joint space, `(B, N, P)`: what norm and head make of an image that consists of one
            patch. Then query `(B, D)` of the head's probe, which stands for the class token that SigLIP has not, and
            keys and values of the patches, `(B, N, D)` each.
        """
        return self.head(self.post_layernorm(patches))


__all__ = ["LiteLVLMSiglipGuide"]
