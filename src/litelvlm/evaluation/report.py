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
"""Results as tables in the form of the paper's (Markdown and LaTeX) and as plots of retention against tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.samples import required
from .metrics import THRESHOLDS

TITLES = {"refshapes": "RefShapes", "refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
TITLES |= {"grefcoco": "gRefCOCO", "reasonseg": "ReasonSeg"}


def write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """`table.md`, `table.tex` and, for each protocol, `retention-PROTOCOL.png`, made of `evaluate`'s results."""
    rows = report["results"]
    (folder / "table.md").write_text(markdown(rows, len(report["broken"])), encoding="utf-8")
    (folder / "table.tex").write_text(latex(rows), encoding="utf-8")
    return [folder / "table.md", folder / "table.tex", *plot_retention(rows, folder)]


def paper_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each protocol a title and the paper's table of cIoU, in Markdown."""
    parts = []
    for protocol in _unique(row["protocol"] for row in rows):
        head, body = _paper_table([row for row in rows if row["protocol"] == protocol])
        parts += [f"## cIoU, protocol {protocol}", _markdown_table(head, body)]
    return parts


def markdown(rows: Sequence[dict[str, Any]], num_broken: int = 0) -> str:
    """The paper's tables, then every figure with its confidence interval."""
    parts = paper_tables(rows)
    names = {"ciou": "cIoU", "giou": "gIoU", **{f"precision_{t}": f"P@{t}" for t in THRESHOLDS}}
    names |= {"n_acc": "N-acc", "t_acc": "T-acc", "retention": "relative"}
    head = ["data", "split", "protocol", "method", "tokens", *names.values(), "expressions", "images"]
    body = [
        [_title(row["data"]), row["split"], row["protocol"], row["variant"], str(row["retained"])]
        + [_with_interval(row, name) for name in names]
        + [str(row["expressions"]), str(row["images"])]
        for row in rows
    ]
    parts += ["## All figures, in percent, with 95 % confidence intervals (bootstrap over pictures)"]
    parts += [_markdown_table(head, body)]
    if num_broken:
        parts.append(f"{num_broken} expressions were skipped, because they or their pictures could not be read.")
    return "\n\n".join(parts) + "\n"


def latex(rows: Sequence[dict[str, Any]]) -> str:
    """The paper's table of cIoU for each protocol; needs the package booktabs."""
    tables = []
    for protocol in _unique(row["protocol"] for row in rows):
        head, body = _paper_table([row for row in rows if row["protocol"] == protocol])
        lines = [f"% cIoU in percent, protocol {protocol}", rf"\begin{{tabular}}{{rl{'c' * (len(head) - 2)}}}"]
        lines += [r"\toprule", _latex_row(head), r"\midrule"]
        for i, row in enumerate(body):
            if i and row[0] != body[i - 1][0]:
                lines.append(r"\midrule")
            lines.append(_latex_row(row))
        tables.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(tables) + "\n"


def plot_retention(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """cIoU relative to all tokens, mean over the splits, against the tokens kept; a line for each method."""
    paths = []
    for protocol in _unique(row["protocol"] for row in rows):
        chosen = [row for row in rows if row["protocol"] == protocol and row.get("retention") is not None]
        methods = _unique(row["variant"] for row in chosen if row["variant"] != "none")
        if not methods:
            continue
        figure = required("matplotlib.figure").Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method in methods:
            points = _means([row for row in chosen if row["variant"] in (method, "none")], "retention")
            axes.plot(list(points), list(points.values()), marker="o", label=method)
        axes.set(xlabel="visual tokens kept", ylabel="cIoU relative to all tokens, %", title=f"protocol {protocol}")
        axes.grid(alpha=0.3)
        axes.legend()
        paths.append(folder / f"retention-{protocol}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _paper_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: tokens, method, the cIoU of each split, their mean, and the mean relative to all tokens."""
    splits = _unique((row["data"], row["split"]) for row in rows)
    ciou = {(row["retained"], row["variant"], row["data"], row["split"]): row["ciou"] for row in rows}
    lines = sorted(_unique(key[:2] for key in ciou), key=lambda line: -line[0])
    averages = {line: _mean([ciou[line + split] for split in splits]) for line in lines}
    whole = next((average for line, average in averages.items() if line[1] == "none"), None)
    head = ["tokens", "method", *(f"{_title(name)} {split}" for name, split in splits), "average", "relative"]
    body = []
    for line in lines:
        average = averages[line]
        relative = None if not whole or average is None else 100 * average / whole
        cells = [_number(ciou[line + split]) for split in splits]
        body.append([str(line[0]), line[1], *cells, _number(average), _number(relative, " %")])
    return head, body


def _means(rows: Sequence[dict[str, Any]], name: str) -> dict[int, float]:
    """Mean over the splits for each number of tokens, fewest first."""
    values: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["retained"]):
        values.setdefault(row["retained"], []).append(row[name])
    return {tokens: float(np.mean(found)) for tokens, found in values.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _unique(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


def _title(name: str) -> str:
    """A data set's own spelling; of a path its last part."""
    base, _, partition = name.partition(":")
    return TITLES.get(base, Path(name).name) + f" ({partition})" * bool(partition and base in TITLES)


def _number(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:.1f}{unit}"  # noqa: RUF001


def _with_interval(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None or row[f"{name}_low"] is None:
        return _number(row.get(name))
    return f"{row[name]:.1f} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"


def _markdown_table(head: list[str], body: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def _latex_row(cells: list[str]) -> str:
    text = " & ".join(cells).replace("%", r"\%").replace("_", r"\_").replace("–", "--")  # noqa: RUF001
    return text + r" \\"


__all__ = ["latex", "markdown", "paper_tables", "plot_retention", "write_report"]
