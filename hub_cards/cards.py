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
"""Model cards, rendered from one template and what each target says of itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
TARGETS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "targets.yaml").read_text(encoding="utf-8"))
PAPER = "CLIP Tricks You (Lee and Choi, ICML 2026), results of the paper"
PAPER_URL = "https://arxiv.org/abs/2605.13178"
# Beside every card: what an inference endpoint runs, and what it needs
COMPANIONS = ("handler.py", "requirements.txt")


def render_card(target: str) -> str:
    """
    The card of a target, with its metadata.

    Raises:
        ValueError: unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f"There is no card for {target!r}; allowed are {', '.join(TARGETS)}.")
    values = {"paper": None, "base_models": None} | TARGETS[target]
    if values["kind"] == "tiny":
        values["results"] = _results(target)
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    metadata = _metadata(target, values).to_yaml()
    return environment.get_template("card.md.jinja").render(name=target, metadata=metadata, **values)


def write_card(folder: str | Path, target: str | None = None) -> list[Path]:
    """
    Writes README.md and what an inference endpoint needs into the folder of a checkpoint.

    Args:
        folder (`str` or `Path`): of a saved or converted model.
        target (`str`, *optional*): one of [`TARGETS`]; the folder's name by default.

    Returns:
        The files written.

    Raises:
        ValueError: unknown target, or no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    card = folder / "README.md"
    card.write_text(render_card(target or folder.resolve().name), encoding="utf-8")
    return [card, *(Path(shutil.copy(FOLDER / name, folder / name)) for name in COMPANIONS)]


def results_table(rows: list[dict[str, Any]]) -> str:
    """Markdown of what `scripts/evaluate_embedded.py` measured."""
    lines = ["| split | visual tokens | share | cIoU | gIoU | expressions |", "|---|---|---|---|---|---|"]
    for row in rows:
        kept = f"{row['retained']} of {row['patches']} | as {row['share']} of 576"
        lines.append(f"| {row['split']} | {kept} | {row['ciou']:.1f} | {row['giou']:.1f} | {row['expressions']} |")
    return "\n".join(lines)


def _results(target: str) -> dict[str, Any]:
    """Our figures of a target, with the table made of them."""
    results = json.loads((FOLDER / "results" / f"{target}.json").read_text(encoding="utf-8"))
    return results | {"table": results_table(results["rows"])}


def _metadata(target: str, values: dict[str, Any]) -> ModelCardData:
    segments = values["kind"] != "text"
    evaluations = []
    if values["paper"]:
        for dataset, split, *figures in values["paper"]:
            for tokens, figure in zip((576, 192, 128, 64), figures, strict=True):
                evaluations.append(
                    _evaluation(dataset, split, tokens, figure, source_name=PAPER, source_url=PAPER_URL)
                )
    for row in values.get("results", {}).get("rows", []):
        evaluations.append(_evaluation("RefShapes", row["split"], row["retained"], row["ciou"]))
    licence = {name: values[name] for name in ("license", "license_name") if name in values}
    return ModelCardData(
        **licence,
        language="en",
        library_name="transformers",
        pipeline_tag="image-segmentation" if segments else "image-text-to-text",
        tags=["litelvlm", "token-pruning", "custom_code", *(["referring-segmentation"] if segments else [])],
        # The LVLM's weights and the guide's from its CLIP, both unchanged: of the Hub's relations, a merge
        **({"base_model": values["base_models"], "base_model_relation": "merge"} if values["base_models"] else {}),
        model_name=target,
        eval_results=evaluations or None,
    )


def _evaluation(dataset: str, split: str, tokens: int, figure: float, **source: str) -> EvalResult:
    return EvalResult(
        task_type="image-segmentation",
        task_name="Referring segmentation",
        dataset_type=dataset.lower().replace("+", "-plus"),
        dataset_name=dataset,
        dataset_split=split,
        metric_type="ciou",
        metric_name=f"cIoU, {tokens} visual tokens",
        metric_value=figure,
        **source,
    )


__all__ = ["TARGETS", "render_card", "results_table", "write_card"]
