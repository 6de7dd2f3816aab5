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
"""The backbone as a checkpoint of its own, in Transformers' format, for engines that know LLaVA but not LiteLVLM."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from ..modeling.modeling_litelvlm import LiteLVLMForConditionalGeneration
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from .destination import making

_VIDEOS = "whose processor reads videos too, which is not kept here"
_NOT_EXPORTED = {
    "llava_onevision": f"LLaVA-OneVision, {_VIDEOS}",
    "qwen2_vl": f"Qwen2-VL, {_VIDEOS}",
    "qwen2_5_vl": f"Qwen2.5-VL, {_VIDEOS}",
    "paligemma": "PaliGemma, which reads its prompt in both directions, as no engine reads the embeddings of a prompt",
}


def export_llava(
    model: LiteLVLMForConditionalGeneration, processor: LiteLVLMProcessor, dest: str | Path
) -> dict[str, Any]:
    """
    Writes vision tower, projector and language model, with [SEG] in its vocabulary, as `LlavaForConditionalGeneration`
    (or the backbone's own class) and its processor load them. The guide, SAM and what makes masks are left out.

    Args:
        model: its weights are not copied.
        processor: of the model.
        dest (`str` or `Path`): the folder to make; must not exist.

    Returns:
        `architecture`, `num_parameters`, `dtype` and `seg_token_id` (`None` of a model without masks).

    Raises:
        ValueError: there is something at `dest`, the weights are quantised, or the backbone is LLaVA-OneVision,
            PaliGemma or Qwen-VL.
    """
    kind = model.config.backbone_config.model_type
    if kind in _NOT_EXPORTED:
        raise ValueError(f"The backbone is {_NOT_EXPORTED[kind]}; give the engine the checkpoint that was wrapped.")
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError("The weights are quantised; export the model in full precision, and let the engine quantise.")
    config = deepcopy(model.config.backbone_config)
    state = {f"model.{name}": tensor for name, tensor in model.model.backbone.state_dict().items()}
    # CODEPATH: LISA has one linear layer, the backbone's classes have two with an activation between
    if model.config.projector_type == "linear":
        config.projector_hidden_act, config.multimodal_projector_bias = "linear", True
        state = _with_two_layers(state)
    with torch.device("meta"):
        lvlm = AutoModelForImageTextToText.from_config(config, dtype=model.dtype)
    lvlm.load_state_dict(state | {"lm_head.weight": model.lm_head.weight}, assign=True)
    lvlm.tie_weights()
    lvlm.generation_config = model.generation_config

    processor_class: Any = processor_class_from_name(PROCESSOR_MAPPING_NAMES[config.model_type])
    tokenizer, chat_template = _beginning_sequences(processor.tokenizer, processor.chat_template)
    own = processor_class(
        processor.image_processor,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=chat_template,
        image_token=processor.image_token,
        num_additional_image_tokens=int(model.config.has_class_token),  # which CLIP's strategy drops
    )
    with making(Path(dest)) as incomplete:
        lvlm.save_pretrained(incomplete)
        own.save_pretrained(incomplete)
    return {
        "architecture": type(lvlm).__name__,
        "num_parameters": lvlm.num_parameters(),
        "dtype": str(lvlm.dtype).removeprefix("torch."),
        "seg_token_id": model.config.seg_token_id,
    }


def _with_two_layers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The second layer hands on what the first gives."""
    name = "model.multi_modal_projector"
    weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
    identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    layers = {"linear_1.weight": weight, "linear_1.bias": bias}
    layers |= {"linear_2.weight": identity, "linear_2.bias": torch.zeros_like(bias)}
    return state | {f"{name}.{key}": tensor for key, tensor in layers.items()}


def _beginning_sequences(tokenizer: Any, chat_template: str) -> tuple[Any, str]:
    """
    A tokenizer and a template that write the token which begins a sequence, as our processor does itself: engines
    take it from the one for texts, and from the other for conversations.
    """
    if tokenizer.bos_token_id is None:
        return tokenizer, chat_template
    if tokenizer("").input_ids[:1] != [tokenizer.bos_token_id]:
        tokenizer = deepcopy(tokenizer)
        tokenizer.add_bos_token = True
    is_written = "bos_token" in chat_template or tokenizer.bos_token in chat_template
    return tokenizer, chat_template if is_written else "{{ bos_token }}" + chat_template


__all__ = ["export_llava"]
