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
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..evaluation.report import with_interval
from ..hub import check_hub_id
from ..modeling.damage_litelvlm import read_json
from ..writing import write_text

FOLDER = Path(__file__).parent
TARGETS: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "targets.yaml").read_text(encoding="utf-8"))
COMPARED = ("val", "testA", "testB")
"""Splits over which a method is compared with all tokens; testS was made to tell methods apart."""
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
    check_hub_id(repo_id)
    results = _results(target)
    values = TARGETS[target]
    if values["base_model"]:
        name = values["base_model"][0]
        values = {"source": {"name": name, "page": f"https://huggingface.co/{name}"}} | values
    card = ModelCard.from_template(
        _metadata(target, results),
        template_path=str(FOLDER / "card.md.jinja"),
        **values,
        name=target,
        repository=repo_id,
        results=results,
        tables=tables_with_intervals(results["rows"]) if results else None,
        giou=results_table(results["rows"], "giou") if results else None,
    )
    return f"{card}\n"


def write_card(
    folder: str | Path, target: str | None = None, repo_id: str | None = None, *, force: bool = False
) -> list[Path]:
    """
    Writes README.md into the folder of a checkpoint, and beside it what an inference endpoint runs.

    Args:
        folder (`str` or `Path`): of a saved or converted model.
        target (`str`, *optional*): one of [`TARGETS`]; the folder's name by default.
        repo_id (`str`, *optional*): as in [`render_card`].
        force (`bool`): whether to replace files of these names with another content.

    Returns:
        The files written.

    Raises:
        ValueError: unknown target, a folder without a model or with that of another host, or files that would be
            replaced.
    """
    folder = Path(folder)
    mend = "name the folder of a saved or converted model"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no config.json; {mend}.")
    kind = read_json(folder / "config.json", mend).get("model_type")
    if kind != LiteLVLMConfig.model_type:
        raise ValueError(f"{str(folder)!r} holds a model of type {kind!r}, and no LiteLVLM; {mend}.")
    target = target or folder.resolve().name
    texts = {folder / "README.md": render_card(target, repo_id)}
    _check_host(folder, target)
    for name in ENDPOINT_FILES:
        # In a repository the code stands beside the handler, which is no package
        text = (FOLDER / name).read_text(encoding="utf-8")
        texts[folder / name] = re.sub(r"^from \.\.\w+\.(\w+) import", r"from \1 import", text, flags=re.MULTILINE)
    others = [path.name for path, text in texts.items() if path.exists() and path.read_bytes() != text.encode()]
    if others and not force:
        raise ValueError(
            f"{str(folder)!r} holds {', '.join(others)} already, with another content; move what you want to keep, or "
            "replace it by `--force`."
        )
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _check_host(folder: Path, target: str) -> None:
    """Raises a `ValueError` that names the targets which fit, where a folder holds another model than a card is of."""
    config: Any = LiteLVLMConfig.from_pretrained(folder)
    held = {
        "backbone": config.backbone_config.model_type,
        "language_model": config.get_text_config().model_type,
        "guide": config.guide_config.model_type,
        "answers": "text" if config.sam_config is None else "masks",
        "decoder": None if config.sam_config is None else config.sam_config.model_type,
    }
    # A model that was saved since has none
    report = folder / "conversion_report.json"
    if report.is_file() and (kind := read_json(report).get("kind")) is not None:
        held["kind"] = kind
    if _fits(target, held):
        return
    fitting = ", ".join(name for name in TARGETS if _fits(name, held))
    mend = (
        f"Those that fit: {fitting}; name one by `--target`"
        if fitting
        else "No card fits it; write README.md yourself"
    )
    raise ValueError(
        f"{str(folder)!r} holds a model of {_say(held)}, but {target} is the card of {_say(_host(target))}. {mend}."
    )


def _host(target: str) -> dict[str, Any]:
    values = TARGETS[target]
    decoder = "sam" if values["answers"] == "masks" else None
    return values["host"] | {"answers": values["answers"], "decoder": decoder, "kind": values.get("kind")}


def _fits(target: str, held: dict[str, Any]) -> bool:
    """Whether a card is of what a folder holds, as far as both say."""
    return all(held[name] == value for name, value in _host(target).items() if name in held)


def _say(host: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in host.items() if value is not None)


def results_table(rows: list[dict[str, Any]], metric: str) -> str:
    """
    Our measurements of a metric as Markdown: a line for each method, a column for each split and budget, and the mean
    over [`COMPARED`] relative to that of all tokens, for each budget.
    """
    splits, budgets = _splits(rows), _budgets(rows)
    found = {(row["method"], row["split"], row["retained"]): f"{row[metric]:.1f}" for row in rows}
    columns = [(split, budget) for split in splits for budget in budgets]
    lines = [["method", *(f"{split} {kept}" for split, kept in columns), *(f"relative {kept}" for kept in budgets)]]
    for method in dict.fromkeys(row["method"] for row in rows):
        kept = {budget: rows[0]["patches"] if method == "none" else budget for budget in budgets}
        cells = [found[method, split, kept[budget]] for split, budget in columns]
        lines.append([method, *cells, *(_relative(rows, method, kept[budget], metric) for budget in budgets)])
    return _markdown(lines)


def tables_with_intervals(rows: list[dict[str, Any]]) -> dict[int, str]:
    """
    Our measurements of cIoU with their 95 % intervals as Markdown, a table for each budget: a line for each method, a
    column for each split, and the mean over [`COMPARED`] relative to that of all tokens.
    """
    tables = {}
    for budget in _budgets(rows):
        lines = [["method", "tokens in a layer", *_splits(rows), "relative"]]
        of_budget = [row for row in rows if row["method"] == "none" or row["retained"] == budget]
        for method in dict.fromkeys(row["method"] for row in of_budget):
            of_method = [row for row in of_budget if row["method"] == method]
            cells = [with_interval(row, "ciou") for row in of_method]
            kept = of_method[0]["retained"]
            lines.append(
                [method, f"{of_method[0]['layer_tokens']:.4g}", *cells, _relative(rows, method, kept, "ciou")]
            )
        tables[budget] = _markdown(lines)
    return tables


def _splits(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["split"] for row in rows))


def _budgets(rows: list[dict[str, Any]]) -> list[int]:
    return sorted({row["retained"] for row in rows if row["method"] != "none"}, reverse=True)


def _relative(rows: list[dict[str, Any]], method: str, retained: int, metric: str) -> str:
    compared = [row for row in rows if row["split"] in COMPARED]
    whole = sum(row[metric] for row in compared if row["method"] == "none")
    kept = sum(row[metric] for row in compared if (row["method"], row["retained"]) == (method, retained))
    return f"{100 * kept / whole:.0f} %"


def _markdown(lines: list[list[str]]) -> str:
    head, *body = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


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
        if row["method"] not in ("none", "litelvlm"):
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


__all__ = ["TARGETS", "render_card", "results_table", "tables_with_intervals", "write_card"]
