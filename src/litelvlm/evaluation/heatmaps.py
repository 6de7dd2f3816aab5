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
"""Similarity to the text, drawn over the images where the reversal is least and most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import torch

from ..data.samples import ReferringImage
from ..extras import required
from ..modeling.modeling_litelvlm import LiteLVLMModel
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..visualization import plot_similarity
from ..writing import replacing
from .similarity import Diagnosis, look, similarities


@torch.inference_mode()
def draw_heatmaps(
    model: LiteLVLMModel,
    processor: LiteLVLMProcessor,
    images: Mapping[str, ReferringImage],
    ranked: Sequence[Diagnosis],
    folder: Path,
    columns: int = 4,
) -> None:
    """
    Writes `heatmaps.png`: similarity over the images of lowest AUROC (above) and of highest (below), objects outlined.

    Args:
        images: by the keys that the diagnoses name.
        ranked: by rising AUROC.
        folder: an existing folder.
        columns (`int`): images above, and below.
    """
    shown = [ranked[:columns], ranked[::-1][:columns]]
    figure = required("matplotlib.figure").Figure(figsize=(3 * columns, 6.6), layout="constrained")
    for axes, one in zip(figure.subplots(2, columns, squeeze=False).ravel(), _padded(shown, columns), strict=True):
        axes.axis("off")
        if one is None:
            continue
        entry = images[one.image]
        expression = next(e for e in entry.expressions if e.id == one.expression)
        image, mask = entry.load_image(), expression.load_mask()
        similarity = similarities(model, *look(model, processor, image, [expression]))
        plot_similarity(image, similarity[0], processor, axes)
        axes.contour(mask == 1, levels=[0.5], colors="black", linewidths=1)
        axes.set_title(f"{shorten(one.text, 44)}\nAUROC {one.figures['auroc']:.2f}", fontsize=8)
    figure.suptitle("similarity to the text, blue low and red high; above the least reversed, below the most")
    with replacing(folder / "heatmaps.png") as temporary:
        figure.savefig(temporary, dpi=110)


def _padded(rows: Sequence[Sequence[Diagnosis]], columns: int) -> list[Diagnosis | None]:
    return [row[i] if i < len(row) else None for row in rows for i in range(columns)]


__all__ = ["draw_heatmaps"]
