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
"""What is seen of one image: how similar patches inside and outside the named object are to the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from ..data.samples import Referring
from ..extras import required
from ..modeling.modeling_litelvlm import LiteLVLMImageState, LiteLVLMModel
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.pruning_litelvlm import PruningPlan, patch_text_similarity
from .runs import Run, configured


@dataclass
class Diagnosis:
    """
    What is seen of one expression.

    Args:
        image (`str`): key of its image.
        expression (`str`): its id.
        text (`str`): the expression.
        figures (`dict[str, float]`): AUROC of -similarity, mean similarity inside and outside, shares and recalls.
    """

    image: str
    expression: str
    text: str
    figures: dict[str, float]


def object_cover(mask: np.ndarray, side: int, cropped: bool) -> torch.Tensor:
    """
    How much of each patch the object covers.

    Args:
        mask (`np.ndarray` of shape `(H, W)`): 1 inside.
        side (`int`): patches per side.
        cropped (`bool`): whether the vision tower sees the central square only, or the whole image.

    Returns:
        `torch.Tensor` of shape `(side * side,)`, float32, from 0 to 1, in raster order.
    """
    seen = torch.from_numpy((mask == 1).astype(np.float32))
    if cropped:
        edge = min(mask.shape)
        top, left = ((length - edge) // 2 for length in mask.shape)
        seen = seen[top : top + edge, left : left + edge]
    return nn.functional.adaptive_avg_pool2d(seen[None], side).flatten()


def look(
    model: LiteLVLMModel, processor: LiteLVLMProcessor, image: Image.Image, asked: Sequence[Referring]
) -> tuple[dict[str, torch.Tensor], LiteLVLMImageState]:
    """The inputs for an image and the questions asked of it one by one, and the image as CLIP sees it."""
    questions = [(e.question_template or processor.question_template).replace("{}", e.text) for e in asked]
    inputs = processor(image, questions, question_template="{}").to(model.device)
    return inputs, _encode(model, inputs, "litelvlm")


def similarities(model: LiteLVLMModel, inputs: Mapping[str, torch.Tensor], state: LiteLVLMImageState) -> torch.Tensor:
    """Similarity of each patch to each question, `(num_questions, N)`, float32, on the CPU."""
    texts = model.guide(inputs["guide_input_ids"], inputs["guide_attention_mask"])  # [B, 1, P]
    if state.patch_embeds is None:
        raise ValueError("`state` holds no patches in CLIP's joint space; make it by `look`.")
    return patch_text_similarity(state.patch_embeds.expand(len(texts), -1, -1), texts)[:, 0].float().cpu()


def _encode(model: LiteLVLMModel, inputs: Mapping[str, torch.Tensor], method: str) -> LiteLVLMImageState:
    return model.encode_image(inputs["pixel_values"].to(model.dtype), pruning_method=method)


def reversal_auroc(similarity: torch.Tensor, is_object: torch.Tensor, is_background: torch.Tensor) -> float:
    """
    AUROC of minus similarity as a detector of an object's patches: 0.5 is chance, and above it the similarity is
    reversed. Patches that are neither are not counted.

    Args:
        similarity (`torch.Tensor` of shape `(N,)`): of each patch to the text.
        is_object, is_background (`torch.BoolTensor` of shape `(N,)`): at least one patch each.
    """
    counted = is_object | is_background
    return float(required("sklearn.metrics").roc_auc_score(is_object[counted].numpy(), -similarity[counted].numpy()))


@torch.inference_mode()
def diagnose_image(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    key: str,
    image: Image.Image,
    asked: Sequence[tuple[Referring, np.ndarray]],
    runs: Sequence[Run],
) -> list[Diagnosis]:
    """
    What is seen of the expressions of one image; those whose object or background has no patch are left out.

    Args:
        model, processor: of [`load_clip`].
        key (`str`): of the image.
        asked: expressions with their masks.
        runs: methods and budgets whose recall of object patches to measure.
    """
    cropped = bool(processor.image_processor.do_center_crop)
    inputs, state = look(model, processor, image, [expression for expression, _ in asked])
    similarity = similarities(model, inputs, state)
    states = {"litelvlm": state}
    for method in {run.method for run in runs} - states.keys():
        states[method] = _encode(model, inputs, method)
    retained = {run: _retained(model, inputs, states[run.method], run) for run in runs}
    found = []
    for i, (expression, mask) in enumerate(asked):
        cover = object_cover(mask, model.config.num_patches_per_side, cropped)
        # A small object may cover half of no patch; then the patches that it covers most are its own
        is_object = (cover > 0.5) | ((cover == cover.max()) & (cover.max() > 0) & (cover.max() <= 0.5))
        is_background = cover == 0
        num_object = int(is_object.sum())
        if not num_object or not is_background.any():
            continue
        figures = {
            "auroc": reversal_auroc(similarity[i], is_object, is_background),
            "similarity_inside": similarity[i][is_object].mean().item(),
            "similarity_outside": similarity[i][is_background].mean().item(),
        }
        order = similarity[i].argsort(stable=True)
        for budget in dict.fromkeys(run.retained for run in runs):
            figures[f"lowest_{budget}"] = is_object[order[:budget]].sum().item() / num_object
            figures[f"highest_{budget}"] = is_object[order[-budget:]].sum().item() / num_object
        for run, indices in retained.items():
            kept = indices[i][indices[i] >= 0]  # -1 stands for a token of several patches token
            figures[f"recall/{run.variant}/{run.retained}"] = is_object[kept].sum().item() / num_object
        found.append(Diagnosis(key, expression.id, expression.text, figures))
    return found


@torch.inference_mode()
def tower_cosine(
    model: LiteLVLMModel, processor: LiteLVLMProcessor, parent: PreTrainedModel, image: Image.Image
) -> float:
    """
    How near the vision tower still is to the one it comes from: the mean over an image's patches of the cosine between
    their states in both, at the layer that the guide reads, for the same pixels.

    Args:
        model, processor: of [`load_clip`].
        parent ([`CLIPModel`] or [`SiglipModel`]): what the guide was trained with; its tower may have more layers.
        image: seen by both as the model's image processor prepares it.
    """
    pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"].to(model.device)
    tower = model.backbone.vision_tower
    layer = model.config.vision_feature_layers[0] % (len(tower.encoder.layers) + 1)
    own, its = (
        # Interpolated where it is for smaller images than the model's, as of PaliGemma
        one(pixels.to(one.dtype), output_hidden_states=True, interpolate_pos_encoding=True)
        .hidden_states[layer]
        .float()
        for one in (tower, parent.vision_model)
    )
    cosine = nn.functional.cosine_similarity(own, its, dim=-1)[0]
    return float(cosine[int(model.config.has_class_token) :].mean())


def _retained(
    model: LiteLVLMModel, inputs: Mapping[str, torch.Tensor], state: LiteLVLMImageState, run: Run
) -> torch.Tensor:
    """Patches that a method retains for each question asked alone, `(num_questions, K)`."""
    texts = inputs["guide_input_ids"]
    with configured(model.config, dict(run.settings)):
        plan = PruningPlan.resolve(model.config, run.retained, run.method)
        tokens, _ = model.select_tokens(state.repeat_for(len(texts)), texts, inputs["guide_attention_mask"], plan)
    if tokens.indices is None:
        raise ValueError(f"{run.method!r} keeps all tokens; diagnose a method that selects some.")
    return tokens.indices.cpu()


__all__ = [
    "Diagnosis",
    "diagnose_image",
    "look",
    "object_cover",
    "reversal_auroc",
    "similarities",
    "tower_cosine",
]
