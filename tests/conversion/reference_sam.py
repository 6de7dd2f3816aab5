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
"""segment-anything's mask decoder as a plain function of its own weights, the reference for the key mapping."""

import math

import torch
from torch.nn import functional


def decode_masks(weights, mask_embeddings, image_embedding):
    """
    Args:
        weights (`dict[str, torch.Tensor]`): under segment-anything's names, `mask_decoder.*` and `prompt_encoder.*`.
        mask_embeddings (`torch.Tensor` of shape `(M, C)`): each the only sparse prompt of one mask.
        image_embedding (`torch.Tensor` of shape `(1, C, h, w)`).

    Returns:
        `torch.Tensor` of shape `(M, 4 h, 4 w)`: logits of the first mask token.
    """
    _, channels, height, width = image_embedding.shape

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name, eps=1e-5):
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def attend(query, key, value, name, heads=8):
        parts = [linear(x, f"{name}.{p}_proj") for x, p in ((query, "q"), (key, "k"), (value, "v"))]
        query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in parts)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return linear((scores.softmax(-1) @ value).transpose(1, 2).flatten(2), f"{name}.out_proj")

    outputs = torch.cat([weights["mask_decoder.iou_token.weight"], weights["mask_decoder.mask_tokens.weight"]])
    tokens = torch.cat([outputs.expand(len(mask_embeddings), -1, -1), mask_embeddings[:, None]], dim=1)
    y, x = torch.meshgrid(
        *((torch.arange(n, dtype=tokens.dtype) + 0.5) / n * 2 - 1 for n in (height, width)), indexing="ij"
    )
    angles = (
        2 * math.pi * torch.stack([x, y], -1) @ weights["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    )
    positions = torch.cat([angles.sin(), angles.cos()], -1).flatten(0, 1)
    keys = (image_embedding[0].flatten(1).T + weights["prompt_encoder.no_mask_embed.weight"]).expand(
        len(tokens), -1, -1
    )

    queries, transformer = tokens, "mask_decoder.transformer"
    for i in range(2):
        layer = f"{transformer}.layers.{i}"
        if i == 0:
            queries = attend(queries, queries, queries, f"{layer}.self_attn")
        else:
            queries = queries + attend(queries + tokens, queries + tokens, queries, f"{layer}.self_attn")
        queries = norm(queries, f"{layer}.norm1")
        seen = attend(queries + tokens, keys + positions, keys, f"{layer}.cross_attn_token_to_image")
        queries = norm(queries + seen, f"{layer}.norm2")
        hidden = functional.relu(linear(queries, f"{layer}.mlp.lin1"))
        queries = norm(queries + linear(hidden, f"{layer}.mlp.lin2"), f"{layer}.norm3")
        told = attend(keys + positions, queries + tokens, queries, f"{layer}.cross_attn_image_to_token")
        keys = norm(keys + told, f"{layer}.norm4")
    seen = attend(queries + tokens, keys + positions, keys, f"{transformer}.final_attn_token_to_image")
    queries = norm(queries + seen, f"{transformer}.norm_final_attn")

    upscaling = "mask_decoder.output_upscaling"
    image = keys.transpose(1, 2).reshape(-1, channels, height, width)
    for i in (0, 3):
        weight, bias = weights[f"{upscaling}.{i}.weight"], weights[f"{upscaling}.{i}.bias"]
        image = functional.conv_transpose2d(image, weight, bias, stride=2)
        if i == 0:
            image = norm(image.movedim(1, -1), f"{upscaling}.1", 1e-6).movedim(-1, 1)
        image = functional.gelu(image)
    kernel, name = queries[:, 1], "mask_decoder.output_hypernetworks_mlps.0.layers"
    for i in range(3):
        kernel = linear(kernel, f"{name}.{i}")
        kernel = functional.relu(kernel) if i < 2 else kernel
    return torch.einsum("mc,mchw->mhw", kernel, image)
