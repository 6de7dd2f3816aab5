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
"""What a pass costs, counted and not timed: floating-point operations, cache entries and live activations."""

import weakref
from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import SiglipConfig
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.outputs_litelvlm import LiteLVLMImageState
from ..modeling.processing_litelvlm import num_tokens_in_crops
from ..modeling.pruning_litelvlm import KEEP_ALL, PruningPlan
from .presets import IMAGE_SIZE, build_model


def guide_length(config: LiteLVLMConfig) -> int:
    """Tokens of a question as the guide reads it, in every measurement: 24 of CLIP; SigLIP pads all texts alike."""
    guide = config.guide_config
    return guide.text_config.max_position_embeddings if isinstance(guide, SiglipConfig) else 24


def num_visual_tokens(config: LiteLVLMConfig) -> int:
    """Visual tokens of an image before pruning; where that depends on the image, of one of `IMAGE_SIZE`."""
    if config.has_external_guide:
        return prod(_patch_grid(config)) // config.vision_config.spatial_merge_size**2
    if not config.has_crops:
        return config.num_patches
    backbone = config.backbone_config
    limit = getattr(backbone, "vision_aspect_ratio", None)
    size, num_patches = config.vision_config.image_size, config.num_patches_per_side**2
    return num_tokens_in_crops(IMAGE_SIZE, backbone.image_grid_pinpoints, size, num_patches, limit)


def _patch_grid(config: LiteLVLMConfig) -> tuple[int, int]:
    """Lines and columns of patches in which a Qwen-VL sees an image of `IMAGE_SIZE`, by its processor's defaults."""
    vision: Any = config.vision_config
    height, width = smart_resize(*IMAGE_SIZE, factor=vision.patch_size * vision.spatial_merge_size)
    return height // vision.patch_size, width // vision.patch_size


def language_model_macs(config: LiteLVLMConfig, num_tokens: int) -> int:
    """
    Multiply-accumulates of one prefill by the formula 2nd(a + k) + 2n²a + 3ndm per layer, for n tokens, width d, MLP
    width m, and a and k the width of all query heads and of all key heads. Where both are d, it is 4nd² + 2n²d + 3ndm:
    SparseVLM (arXiv 2410.04417) counts so, and the TFLOPs that the LiteLVLM paper publishes (4.66 / 2.11 / 1.27 at
    576 / 192 / 64 visual tokens) fit it at about 128 text tokens. The head is not counted.
    """
    text = config.get_text_config()
    n, d, m = num_tokens, text.hidden_size, text.intermediate_size
    a, k = (number * _head_dim(text) for number in (text.num_attention_heads, text.num_key_value_heads))
    return text.num_hidden_layers * (2 * n * d * (a + k) + 2 * n**2 * a + 3 * n * d * m)


def kv_cache_bytes(config: LiteLVLMConfig, num_tokens: int, dtype: torch.dtype) -> int:
    """Keys and values of `num_tokens` tokens in every layer of the language model."""
    text = config.get_text_config()
    return 2 * text.num_hidden_layers * text.num_key_value_heads * _head_dim(text) * num_tokens * dtype.itemsize


def _head_dim(text: Any) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of a call by torch's counter: two for each multiply-accumulate of a matrix product."""
    # Before torch 2.15 the counter knows the attention of GPUs only
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    known = {on_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return counter.get_total_flops()


@torch.no_grad()
def model_flops(
    config: LiteLVLMConfig, num_text_tokens: int, num_retained_tokens: int | None, pruning_method: str = "litelvlm"
) -> dict[str, int]:
    """
    Floating-point operations per stage for one image (where its size matters, of `IMAGE_SIZE`) and one question of
    [`guide_length`] tokens, by torch's counter on the meta device: exact for any size, without any weights in memory.

    Args:
        config: of the model; with one [SEG] if it has a SAM.
        num_text_tokens (`int`): tokens of the prompt that are not visual.
        num_retained_tokens (`int`, *optional*): the budget; `None` prunes nothing.
        pruning_method (`str`): the method that is given the budget.

    Returns:
        `dict[str, int]`: `plain_clip` (the whole vision tower, as the LVLM itself runs it), `clip` (as far as needed,
        and an external guide's own look at the image), `guide` and `selection` (of methods that prune before the
        language model), `prefill` (the language model alone), `head` (the logits of one token), `sam_encoder` and
        `mask_decoder`, and `total` of all but `plain_clip`.
    """
    # Copied, since a configuration remembers the dtype and attention of the model made with it
    model = build_model(deepcopy(config), "meta")
    num_tokens = num_text_tokens + (num_retained_tokens or num_visual_tokens(config))
    with torch.device("meta"):
        guide_ids = guide_mask = torch.zeros(1, 1, guide_length(config), dtype=torch.long)
        embeds = torch.empty(1, num_tokens, config.get_text_config().hidden_size)
    image, run_tower = _image_inputs(model)
    flops = {"plain_clip": count_flops(run_tower)}
    plan = PruningPlan.resolve(
        model.config, num_retained_tokens, "none" if num_retained_tokens is None else pruning_method
    )
    states: list[LiteLVLMImageState] = []  # counted and kept in one run
    flops["clip"] = count_flops(
        lambda: states.append(model.model.encode_image(**image, pruning_method=plan.method.name))
    )
    if plan.selector is not KEEP_ALL:
        (state,) = states
        both = count_flops(lambda: model.model.select_tokens(state, guide_ids, guide_mask, plan))
        guide = count_flops(lambda: model.model.guide(guide_ids, guide_mask)) if plan.selector.needs_texts else 0
        flops |= {"guide": guide, "selection": both - guide}
    flops["prefill"] = count_flops(lambda: model.model.backbone.language_model(inputs_embeds=embeds))
    flops["head"] = count_flops(lambda: model.lm_head(embeds[:, -1]))
    if config.sam_config is not None:
        sam_size = config.sam_square_config.image_size
        images = torch.empty(1, 3, sam_size, sam_size, device="meta")
        flops["sam_encoder"] = count_flops(lambda: model.sam.encode_image(images))
        embeddings = model.sam.encode_image(images)
        prompt = torch.empty(1, 1, config.mask_embedding_size, device="meta")
        flops["mask_decoder"] = count_flops(lambda: model.sam.decode_masks(prompt, embeddings))
    flops["total"] = sum(flops.values()) - flops["plain_clip"]
    return flops


def _image_inputs(model: LiteLVLMForSegmentation) -> tuple[dict[str, torch.Tensor], Callable[[], Any]]:
    """An image of `IMAGE_SIZE` for `encode_image` of a model on the meta device, and a run of its vision tower."""
    config, backbone = model.config, model.model.backbone
    if config.has_external_guide:
        grid, tower = _patch_grid(config), backbone.visual
        # Windows are cut by the grid's values, of which the meta device has none; only the rotary angles must be on it
        grid_thw = torch.tensor([[1, *grid]])
        tower.rotary_pos_emb.register_forward_pre_hook(lambda _, args: (args[0], args[1].to("meta")))
        side = config.guide_config.vision_config.image_size
        patches = torch.empty(prod(grid), tower.patch_embed.proj.weight[0].numel(), device="meta")
        squares = torch.empty(1, 3, side, side, device="meta")
        image = {"pixel_values": patches, "image_grid_thw": grid_thw, "guide_pixel_values": squares}
        return image, lambda: tower(patches, grid_thw)
    side, tower = config.vision_config.image_size, backbone.vision_tower
    if not config.has_crops:
        pixels = torch.empty(1, 3, side, side, device="meta")
        return {"pixel_values": pixels}, lambda: tower(pixels)
    number = image_size_to_num_patches(IMAGE_SIZE, config.backbone_config.image_grid_pinpoints, side)
    crops = torch.empty(number, 3, side, side, device="meta")
    return {"pixel_values": crops[None], "image_sizes": torch.tensor([IMAGE_SIZE])}, lambda: tower(crops)


class LiveMemory(TorchDispatchMode):
    """
    The most bytes that tensors made inside the block took at one moment: activations and cache entries, whatever the
    device; not the weights and inputs, which were there before, and not what a kernel takes for itself.

    ```python
    >>> with LiveMemory() as memory:
    ...     output = model(**inputs)
    >>> memory.peak_bytes
    ```
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live_bytes = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        # Inputs existed before the block; views and in-place results share their storage
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        return result

    def _watch(self, storage: torch.UntypedStorage, num_bytes: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._forget(key, num_bytes))
            self._live_bytes += num_bytes

    def _forget(self, key: int, num_bytes: int) -> None:
        del self._known[key]
        self._live_bytes -= num_bytes


__all__ = [
    "LiveMemory",
    "count_flops",
    "guide_length",
    "kv_cache_bytes",
    "language_model_macs",
    "model_flops",
    "num_visual_tokens",
]
