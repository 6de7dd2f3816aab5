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
Does the similarity reversal that LiteLVLM builds on hold for a CLIP on some data?

The finding of "CLIP Tricks You" (arXiv 2605.13178) is that patches inside the region a text refers to are often LESS
similar to that text than others. Here it is measured: no language model runs, and none is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel, LlamaConfig, LlavaConfig

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..data.samples import Referring, ReferringImage, required
from ..modeling.modeling_litelvlm import LiteLVLMImageState, LiteLVLMModel
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.pruning_litelvlm import get_pruning_method, patch_text_similarity
from .metrics import mean_with_interval
from .protocol import Run, configured, read_masks


@dataclass
class Diagnosis:
    """
    What is seen of one expression.

    Args:
        image (`str`): key of its picture.
        expression (`str`): its id.
        text (`str`): the expression.
        figures (`dict[str, float]`): AUROC of -similarity, mean similarity inside and outside, shares and recalls.
    """

    image: str
    expression: str
    text: str
    figures: dict[str, float]


class _ClipOfModel(LiteLVLMModel):
    """Of a whole model's weights, those of the language model's layers and of the mask decoder are left alone."""

    _keys_to_ignore_on_load_unexpected = [
        r"language_model\.layers\.",
        r"^lm_head\.",
        r"^sam\.",
        r"^seg_head\.",
    ]


def load_clip(name: str, dtype: str | torch.dtype = "auto") -> tuple[LiteLVLMModel, LiteLVLMProcessor]:
    """
    The CLIP in a LiteLVLM folder, of whose language model no layer is read; or a CLIP of Transformers by itself.

    Raises:
        ValueError: neither can be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type == "clip":
            return _load_plain_clip(name, dtype)
        if config.model_type != "litelvlm":
            raise ValueError(f"it is a {config.model_type!r} model; allowed are 'litelvlm' and 'clip'")
        config.get_text_config().num_hidden_layers = 0
        model = _ClipOfModel.from_pretrained(name, config=config, dtype=dtype)
        processor = LiteLVLMProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"The model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if hasattr(model.config.backbone_config, "image_grid_pinpoints"):
        raise ValueError(f"{name!r} cuts its pictures into crops, which have no single map; name its CLIP instead.")
    processor.with_masks = False
    return model.eval(), processor


def _load_plain_clip(name: str, dtype: str | torch.dtype) -> tuple[LiteLVLMModel, LiteLVLMProcessor]:
    clip = CLIPModel.from_pretrained(name, dtype=dtype)
    vision, text = clip.config.vision_config, clip.config.text_config
    vision.projection_dim = text.projection_dim = clip.config.projection_dim
    llama = LlamaConfig(num_hidden_layers=0, hidden_size=8, num_attention_heads=1, vocab_size=8, intermediate_size=8)
    backbone = LlavaConfig(vision_config=vision, text_config=llama, image_token_id=0)
    patches = (vision.image_size // vision.patch_size) ** 2
    config = LiteLVLMConfig(
        backbone_config=backbone, guide_config=text, num_retained_tokens=None, dtype=clip.config.dtype
    )
    model = LiteLVLMModel(config).to(clip.dtype)
    model.backbone.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.guide.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    model.guide.text_model.text_model.load_state_dict(clip.text_model.state_dict())
    model.guide.text_model.text_projection.load_state_dict(clip.text_projection.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(name)
    image_processor = AutoImageProcessor.from_pretrained(name)
    # Prompts are made with CLIP's tokenizer too, and read by nobody
    processor = LiteLVLMProcessor(image_processor, tokenizer, tokenizer, num_image_tokens=patches, with_masks=False)
    return model.eval(), processor


def object_cover(mask: np.ndarray, side: int, cropped: bool) -> torch.Tensor:
    """
    How much of each patch the object covers.

    Args:
        mask (`np.ndarray` of shape `(H, W)`): 1 inside.
        side (`int`): patches in a row.
        cropped (`bool`): whether the vision tower sees the central square only, or the whole picture.

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
    """The inputs for a picture and the questions asked of it one by one, and the picture as CLIP sees it."""
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


@torch.inference_mode()
def diagnose_image(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    key: str,
    image: Image.Image,
    asked: Sequence[tuple[Referring, np.ndarray]],
    runs: Sequence[Run],
) -> list[Diagnosis]:
    """What is seen of the expressions of one picture; those whose object or background has no patch are left out."""
    cropped = bool(processor.image_processor.do_center_crop)
    inputs, state = look(model, processor, image, [expression for expression, _ in asked])
    similarity = similarities(model, inputs, state)
    states = {"litelvlm": state}
    for method in {run.method for run in runs} - states.keys():
        states[method] = _encode(model, inputs, method)
    retained = {run: _retained(model, inputs, states[run.method], run) for run in runs}
    found = []
    for i, (expression, mask) in enumerate(asked):
        cover = object_cover(mask, round(similarity.shape[1] ** 0.5), cropped)
        # A small object may cover no patch by half: then it is where it covers most
        is_object = (cover > 0.5) | ((cover == cover.max()) & (cover.max() > 0) & (cover.max() <= 0.5))
        inside, outside = similarity[i][is_object], similarity[i][cover == 0]
        if not len(inside) or not len(outside):
            continue
        lower = (inside[:, None] < outside).float() + 0.5 * (inside[:, None] == outside).float()
        figures = {
            "auroc": lower.mean().item(),
            "similarity_inside": inside.mean().item(),
            "similarity_outside": outside.mean().item(),
        }
        order = similarity[i].argsort(stable=True)
        for budget in dict.fromkeys(run.retained for run in runs):
            figures[f"lowest_{budget}"] = is_object[order[:budget]].sum().item() / len(inside)
            figures[f"highest_{budget}"] = is_object[order[-budget:]].sum().item() / len(inside)
        for run, indices in retained.items():
            kept = indices[i][indices[i] >= 0]  # -1 is no patch's own token
            figures[f"recall/{run.variant}/{run.retained}"] = is_object[kept].sum().item() / len(inside)
        found.append(Diagnosis(key, expression.id, expression.text, figures))
    return found


def _retained(
    model: LiteLVLMModel, inputs: Mapping[str, torch.Tensor], state: LiteLVLMImageState, run: Run
) -> torch.Tensor:
    """Patches that a method retains for each question asked alone, `(num_questions, K)`."""
    texts = inputs["guide_input_ids"]
    repeated = LiteLVLMImageState(**{name: value.repeat_interleave(len(texts), 0) for name, value in state.items()})
    with configured(model.config, dict(run.settings)):
        tokens, _ = model.select_tokens(repeated, texts, inputs["guide_attention_mask"], run.retained, run.method)
    return tokens.indices.cpu()


def diagnose(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    data: Mapping[tuple[str, str], Sequence[ReferringImage]],
    runs: Sequence[Run],
    output: Path,
    *,
    seed: int = 0,
    skip_broken: bool = False,
) -> dict[str, Any]:
    """
    Measures the reversal and writes `heatmaps.png` into a folder.

    Args:
        model, processor: of [`load_clip`].
        data: pictures by data set and split.
        runs: methods and budgets whose recall of object patches to measure.
        output: the folder.
        seed (`int`): of the bootstrap.
        skip_broken (`bool`): whether to leave out, and count, what cannot be read.

    Returns:
        `verdict` (a sentence), `figures` (each mean with its 95 % interval), `expressions`, `images`, `left_out` (no
        target, or no patch of its own) and `broken`.

    Raises:
        ValueError: a method that chooses inside the language model, a form of the guide's texts, or nothing to look
            at.
    """
    for run in runs:
        if run.guide_form:
            raise ValueError(
                f"{run.variant!r} sets `guide_form`, but the similarity is that of the questions; omit it."
            )
        method = get_pruning_method(run.method)
        if method is None or method.inside_language_model:
            raise ValueError(f"{run.method!r} chooses no tokens before the language model; diagnose another method.")
    pictures = {f"{name}/{split}/{e.id}": e for (name, split), entries in data.items() for e in entries}
    found: list[Diagnosis] = []
    broken: list[str] = []
    number = 0
    for key, entry in tqdm(pictures.items(), desc="pictures"):
        image, asked, wrong = read_masks(entry, skip_broken)
        broken += wrong
        number += len(asked)
        targets = [(expression, mask) for expression, mask in asked if mask is not None]
        if image is not None and targets:
            found += diagnose_image(model, processor, key, image, targets, runs)
    if not found:
        raise ValueError("No expression has an object of which CLIP sees a patch; there is nothing to diagnose.")
    images = [one.image for one in found]
    figures = {
        name: mean_with_interval(images, [one.figures[name] for one in found], seed) for name in found[0].figures
    }
    output.mkdir(parents=True, exist_ok=True)
    draw_heatmaps(model, processor, pictures, sorted(found, key=lambda one: one.figures["auroc"]), output)
    return {
        "verdict": verdict(figures, model.config.num_patches, len(found)),
        "figures": figures,
        "patches": model.config.num_patches,
        "expressions": len(found),
        "images": len(set(images)),
        "left_out": number - len(found),
        "broken": broken,
    }


def verdict(figures: Mapping[str, tuple[float, float, float]], patches: int, number: int) -> str:
    """One sentence: whether the reversal holds, by the confidence interval of the AUROC of -similarity."""
    auroc, low, high = figures["auroc"]
    measured = f"AUROC of -similarity {auroc:.2f}, 95 % interval {low:.2f} to {high:.2f}, chance 0.50"
    if low > 0.5:
        judged = "The similarity reversal holds here: the named object's patches are LESS similar to the text"
    elif high < 0.5:
        judged = "The similarity reversal does not hold here: the named object's patches are MORE similar to the text"
    else:
        return f"{number} expressions do not tell whether the similarity reversal holds here ({measured})."
    budgets = [int(name.removeprefix("lowest_")) for name in figures if name.startswith("lowest_")]
    shares = ""
    if budgets:
        k = max(budgets)
        lowest, highest = (100 * figures[f"{end}_{k}"][0] for end in ("lowest", "highest"))
        shares = f"; the {k} lowest of {patches} patches hold {lowest:.0f} % of them, the {k} highest {highest:.0f} %"
    return f"{judged} than the background ({measured}){shares}."


@torch.inference_mode()
def draw_heatmaps(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    pictures: Mapping[str, ReferringImage],
    ranked: Sequence[Diagnosis],
    folder: Path,
    columns: int = 4,
) -> None:
    """`heatmaps.png`: similarity over the pictures of lowest AUROC (upper row) and of highest, objects outlined."""
    shown = [ranked[:columns], ranked[::-1][:columns]]
    figure = required("matplotlib.figure").Figure(figsize=(3 * columns, 6.6), layout="constrained")
    for axes, one in zip(figure.subplots(2, columns, squeeze=False).ravel(), _padded(shown, columns), strict=True):
        axes.axis("off")
        if one is None:
            continue
        entry = pictures[one.image]
        expression = next(e for e in entry.expressions if e.id == one.expression)
        image, mask = entry.load_image(), expression.load_mask()
        similarity = similarities(model, *look(model, processor, image, [expression]))
        side = round(similarity.shape[1] ** 0.5)
        span_x, span_y = image.size
        if processor.image_processor.do_center_crop:
            span_x = span_y = min(image.size)
        left, top = (image.width - span_x) / 2, (image.height - span_y) / 2
        axes.imshow(image.convert("L"), cmap="gray")
        seen = (left, left + span_x, top + span_y, top)
        axes.imshow(similarity[0].view(side, side).numpy(), cmap="coolwarm", alpha=0.6, extent=seen)
        axes.contour(mask == 1, levels=[0.5], colors="black", linewidths=1)
        axes.set(xlim=(0, image.width), ylim=(image.height, 0))
        axes.set_title(f"{shorten(one.text, 44)}\nAUROC {one.figures['auroc']:.2f}", fontsize=8)
    figure.suptitle("similarity to the text, blue low and red high; above the least reversed, below the most")
    figure.savefig(folder / "heatmaps.png", dpi=110)


def _padded(rows: Sequence[Sequence[Diagnosis]], columns: int) -> list[Diagnosis | None]:
    return [row[i] if i < len(row) else None for row in rows for i in range(columns)]


__all__ = [
    "Diagnosis",
    "diagnose",
    "diagnose_image",
    "draw_heatmaps",
    "load_clip",
    "look",
    "object_cover",
    "similarities",
    "verdict",
]
