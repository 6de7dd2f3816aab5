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
"""J, F and J&F of videos: the mean over the frames of each expression, and of these the mean over the expressions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..data.samples import BrokenAnnotation, Referring, ReferringVideo
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..video import segment_video
from .bootstrap import mean_with_interval
from .video_metrics import contour_accuracy, region_similarity


def measure_videos(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, videos: Sequence[ReferringVideo], **options: Any
) -> Iterator[dict[str, Any]]:
    """
    Measures every expression by itself, on all frames. As for images, of several masks in an answer the first counts,
    and an answer without any as empty masks.

    Args:
        videos: such as [`load_videos`] gives them.
        options: those of [`segment_video`], such as `tracker` and `num_retained_tokens`.

    Yields:
        `{"video", "expression", "j", "f"}`: ids, and the means over the frames, from 0 to 1.

    Raises:
        BrokenAnnotation: a frame or mask cannot be read, or they differ in size.
        ValueError: as of [`segment_video`].
    """
    for video in videos:
        frames = [load() for load in video.load_frames]
        for expression in video.expressions:
            expected = _read_masks(video, expression, frames)
            masks = segment_video(model, processor, frames, expression.text, **options).masks
            predicted = masks[0].numpy() if len(masks) else np.zeros(expected.shape, dtype=bool)
            yield {
                "video": video.id,
                "expression": expression.id,
                "j": float(region_similarity(predicted, expected).mean()),
                "f": float(contour_accuracy(predicted, expected).mean()),
            }


def video_figures(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, float]:
    """`"j"`, `"f"` and `"j_and_f"` in percent, each with `_low` and `_high`: 95 % intervals, bootstrap over videos."""
    figures: dict[str, float] = {}
    values = {name: [row[name] for row in rows] for name in ("j", "f")}
    values["j_and_f"] = [(j + f) / 2 for j, f in zip(values["j"], values["f"], strict=True)]
    for name, found in values.items():
        interval = mean_with_interval([row["video"] for row in rows], [100 * value for value in found], seed)
        figures |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
    return figures


def _read_masks(video: ReferringVideo, expression: Referring, frames: Sequence[Image.Image]) -> np.ndarray:
    masks = expression.load_mask()
    shape = (len(frames), *np.shape(frames[0])[:2])
    if masks is None or masks.shape != shape:
        found = "no masks" if masks is None else f"masks of shape {masks.shape}"
        raise BrokenAnnotation(f"video {video.id}: expression {expression.id} has {found}; its frames are {shape}.")
    return masks


__all__ = ["measure_videos", "video_figures"]
