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
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel

from ..data.samples import ReferringImage
from ..modeling.modeling_litelvlm import LiteLVLMModel
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.pruning_litelvlm import list_pruning_methods
from .bootstrap import mean_with_interval
from .heatmaps import draw_heatmaps
from .measure import read_masks
from .runs import Run
from .similarity import Diagnosis, diagnose_image, tower_cosine


def diagnose(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    data: Mapping[tuple[str, str], Sequence[ReferringImage]],
    runs: Sequence[Run],
    output: Path,
    *,
    seed: int = 0,
    skip_broken: bool = False,
    parent: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """
    Measures the reversal and writes `heatmaps.png` into a folder.

    Args:
        model, processor: of [`load_clip`].
        data: images by dataset and split.
        runs: methods and budgets whose recall of object patches to measure.
        output: the folder.
        seed (`int`): of the bootstrap.
        skip_broken (`bool`): whether to leave out, and count, what cannot be read.
        parent ([`CLIPModel`] or [`SiglipModel`], *optional*): that the vision tower comes from.

    Returns:
        `verdict` (a sentence), `tower` (one on the parent, or `None`), `figures` (each mean with its 95 % interval),
        `expressions`, `images`, `left_out` (no target, or no patch of its own) and `broken`.

    Raises:
        ValueError: a method that selects no tokens before the language model, a form of the guide's texts, or nothing
            to look at.
    """
    for run in runs:
        if run.guide_form:
            raise ValueError(
                f"{run.variant!r} sets `guide_form`, but the similarity is that of the questions; omit it."
            )
        if run.method not in list_pruning_methods(before=True):
            raise ValueError(
                f"{run.method!r} selects no tokens before the language model; allowed are "
                f"{', '.join(list_pruning_methods(before=True))}."
            )
    entries_by_key = {f"{name}/{split}/{e.id}": e for (name, split), entries in data.items() for e in entries}
    found: list[Diagnosis] = []
    broken: list[str] = []
    number = 0
    for key, entry in tqdm(entries_by_key.items(), desc="images"):
        image, asked, wrong = read_masks(entry, skip_broken)
        broken += wrong
        number += len(asked)
        targets = [(expression, mask) for expression, mask in asked if mask is not None]
        if image is not None and targets:
            seen = diagnose_image(model, processor, key, image, targets, runs)
            if parent is not None:
                kept = tower_cosine(model, processor, parent, image)
                for one in seen:
                    one.figures["tower_cosine"] = kept
            found += seen
    if not found:
        raise ValueError("No expression has an object of which CLIP sees a patch; there is nothing to diagnose.")
    images = [one.image for one in found]
    figures = {
        name: mean_with_interval(images, [one.figures[name] for one in found], seed) for name in found[0].figures
    }
    output.mkdir(parents=True, exist_ok=True)
    draw_heatmaps(model, processor, entries_by_key, sorted(found, key=lambda one: one.figures["auroc"]), output)
    return {
        "verdict": verdict(figures, model.config.num_patches, len(found)),
        "tower": tower_verdict(figures) if parent is not None else None,
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


def tower_verdict(figures: Mapping[str, tuple[float, float, float]]) -> str:
    """One sentence on how far the vision tower has moved from the one that the guide was trained with."""
    cosine, low, high = figures["tower_cosine"]
    return (
        f"The patches that the guide reads have a cosine of {cosine:.3f} (95 % interval {low:.3f} to {high:.3f}) with "
        "those of the tower it was trained with: 1 is that tower itself, and the lower, the less the guide's "
        "similarities mean; no threshold is known."
    )


__all__ = ["diagnose", "tower_verdict", "verdict"]
