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
"""Plots of `litelvlm benchmark`: where the time goes, and what pruning saves."""

from pathlib import Path
from typing import Any

from ..extras import required
from ..writing import replacing

# Stages that follow each other in one run, in their order; decoding is the rest
_PARTS = (
    "image_processing",
    "clip",
    "guide",
    "selection",
    "prefill",
    "sam_encoder",
    "mask_decoder",
    "post_processing",
)


def plot_benchmark(report: dict[str, Any], folder: Path) -> list[Path]:
    """
    Writes `stages.png` and `savings.png`.

    Args:
        report: of `measure`, with `preset`.
        folder: an existing folder.

    Returns:
        `list[Path]`: the files.

    Raises:
        ValueError: matplotlib is not installed.
    """
    return [_plot_stages(report, folder / "stages.png"), _plot_savings(report, folder / "savings.png")]


def _plot_stages(report: dict[str, Any], path: Path) -> Path:
    """One bar per candidate, its stages stacked. On a GPU some run beside each other, so that a bar may overstate."""
    rows = report["rows"]
    names = ["Transformers", "un-pruned"] + [f"{row['method']}\n{row['num_retained_tokens']}" for row in rows[2:]]
    medians = [{name: spread["median"] for name, spread in row["milliseconds"].items()} for row in rows]
    figure, axes = _subplots(1.6 * len(rows) + 3, 4.5)
    bottom = [0.0] * len(rows)
    for part in _PARTS:
        heights = [own.get(part, 0.0) for own in medians]
        axes.bar(names, heights, bottom=bottom, label=part.replace("_", " "))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    rest = [max(own["end_to_end"] - low, 0.0) for own, low in zip(medians, bottom, strict=True)]
    axes.bar(names, rest, bottom=bottom, label="decoding", color="lightgrey")
    axes.set_ylabel("milliseconds, median")
    axes.set_title(f"{report['preset']}, {report['num_visual_tokens']} visual tokens")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True, frameon=False)
    return _save(figure, path)


def _plot_savings(report: dict[str, Any], path: Path) -> Path:
    """What is saved against the un-pruned model of the same run, by budget."""
    summary, full = report["summary"], report["num_visual_tokens"]
    budgets = [full, *(int(budget) for budget in summary)]
    figure, axes = _subplots(6, 4)
    for key, label in (
        ("flops_ratio", "prefill FLOPs"),
        ("prefill_speedup", "prefill time"),
        ("activation_ratio", "activations"),
        ("end_to_end_speedup", "end to end"),
    ):
        axes.plot(budgets, [1.0, *(figures[key] for figures in summary.values())], marker="o", label=label)
    axes.set_xlabel("visual tokens kept")
    axes.set_ylabel("times less than un-pruned")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _save(figure, path)


def _subplots(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, which needs no display, and its axes."""
    figure = required("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


__all__ = ["plot_benchmark"]
