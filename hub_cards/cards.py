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
"""Model cards, rendered from one template and from what `targets.yaml` says of each target."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

FOLDER = Path(__file__).parent
TARGETS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "targets.yaml").read_text(encoding="utf-8"))
RECOMMENDED = "litelvlm, highest, original positions, a quarter for context"
"""What the embedded model's card recommends for it."""
ENDPOINT_FILES = ("handler.py", "requirements.txt")
PAPER = {
    "source_name": "CLIP Tricks You (Lee and Choi, ICML 2026), on the official implementation of GLaMM",
    "source_url": "https://arxiv.org/abs/2605.13178",
}


def render_card(target: str, repo_id: str | None = None) -> str:
    """
    The card of a target, its metadata included.

    Args:
        target (`str`): one of [`TARGETS`].
        repo_id (`str`, *optional*): the repository that the card's code names; `"org/" + target` by default.

    Raises:
        ValueError: unknown target, or a `repo_id` that is none.
    """
    if target not in TARGETS:
        raise ValueError(f"There is no card for {target!r}; allowed are {', '.join(TARGETS)}. Name it by `--target`.")
    repo_id = repo_id or f"org/{target}"
    validate_repo_id(repo_id)
    results = _results(target)
    card = ModelCard.from_template(
        _metadata(target, results),
        template_path=str(FOLDER / "card.md.jinja"),
        **TARGETS[target],
        name=target,
        repository=repo_id,
        results=results,
        tables={name: results_table(results["rows"], name) for name in ("ciou", "giou")} if results else None,
    )
    return f"{card}\n"


def write_card(folder: str | Path, target: str | None = None, repo_id: str | None = None) -> list[Path]:
    """
    Writes README.md into the folder of a checkpoint, and beside it what an inference endpoint runs.

    Args:
        folder (`str` or `Path`): of a saved or converted model.
        target (`str`, *optional*): one of [`TARGETS`]; the folder's name by default.
        repo_id (`str`, *optional*): as in [`render_card`].

    Returns:
        The files written.

    Raises:
        ValueError: unknown target, or a folder without a model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no config.json; name the folder of a saved or converted model.")
    card = folder / "README.md"
    card.write_text(render_card(target or folder.resolve().name, repo_id), encoding="utf-8")
    return [card, *(Path(shutil.copy(FOLDER / name, folder)) for name in ENDPOINT_FILES)]


def results_table(rows: list[dict[str, Any]], metric: str) -> str:
    """
    Our measurements of a metric as Markdown: a line for each method, a column for each split and budget, and the mean
    over the splits at the largest budget relative to that of all tokens.
    """
    splits = list(dict.fromkeys(row["split"] for row in rows))
    budgets = sorted({row["retained"] for row in rows if row["method"] != "none"}, reverse=True)
    found = {(row["method"], row["split"], row["retained"]): row[metric] for row in rows}
    whole = {row["split"]: row[metric] for row in rows if row["method"] == "none"}
    tokens = {(row["method"], row["retained"]): f"{row['layer_tokens']:.4g}" for row in rows}
    columns = [(split, budget) for split in splits for budget in budgets]
    head = ["method", "tokens in a layer", *(f"{split} {kept}" for split, kept in columns), f"relative {budgets[0]}"]
    lines = [head, ["---"] * len(head)]
    for method in dict.fromkeys(row["method"] for row in rows):
        if method == "none":
            cells = [f"{whole[split]:.1f}" for split, _ in columns]
            lines.append(["none", str(rows[0]["patches"]), *cells, "100 %"])
            continue
        cells = [f"{found[method, split, budget]:.1f}" for split, budget in columns]
        kept = sum(found[method, split, budgets[0]] for split in splits) / sum(whole.values())
        lines.append([method, " / ".join(tokens[method, b] for b in budgets), *cells, f"{100 * kept:.0f} %"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _results(target: str) -> dict[str, Any] | None:
    """What was measured of a target by this project, if anything was: words in JSON, figures in JSON Lines."""
    words, figures = (FOLDER / "results" / f"{target}{suffix}" for suffix in (".json", ".jsonl"))
    if not words.is_file():
        return None
    rows = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    return json.loads(words.read_text(encoding="utf-8")) | {"rows": rows}


def _metadata(target: str, results: dict[str, Any] | None) -> ModelCardData:
    values = TARGETS[target]
    evaluations = []
    for row in results["rows"] if results else []:
        if row["method"] not in ("none", "litelvlm", RECOMMENDED):
            continue
        tokens = f"{row['retained']} of {row['patches']} visual tokens ({row['method']}), measured by this project"
        evaluations += [
            _evaluation("RefShapes", row["split"], metric, f"{name} with {tokens}", round(row[metric], 1))
            for metric, name in (("ciou", "cIoU"), ("giou", "gIoU"))
        ]
    for dataset, split, *figures in values["paper"]:
        for kept, figure in zip((576, 192, 128, 64), figures, strict=True):
            name = f"cIoU with {kept} of 576 visual tokens, reported by the paper"
            evaluations.append(_evaluation(dataset, split, "ciou", name, figure, **PAPER))
    masks = values["answers"] == "masks"
    return ModelCardData(
        **{name: values[name] for name in ("license", "license_name", "license_link") if name in values},
        language="en",
        library_name="transformers",
        # The Hub knows no tag for the pipeline's own task, referring-segmentation
        pipeline_tag="image-segmentation" if masks else "image-text-to-text",
        tags=["litelvlm", "token-pruning", "custom_code", *(["referring-segmentation"] if masks else [])],
        base_model=values["base_model"] or None,
        # Of the Hub's relations the nearest: two models' weights in one folder, neither of them changed
        base_model_relation="merge" if values["base_model"] else None,
        datasets=values["datasets"] or None,
        metrics=sorted({result.metric_type for result in evaluations}) or None,
        model_name=target if evaluations else None,
        eval_results=evaluations or None,
    )


def _evaluation(dataset: str, split: str, metric: str, name: str, figure: float, **source: str) -> EvalResult:
    return EvalResult(
        task_type="image-segmentation",
        task_name="Referring segmentation",
        dataset_type=dataset.lower(),
        dataset_name=dataset,
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=figure,
        **source,
    )


__all__ = ["RECOMMENDED", "TARGETS", "render_card", "results_table", "write_card"]
