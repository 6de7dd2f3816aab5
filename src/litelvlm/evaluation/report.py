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

from ..extras import required
from ..writing import replacing, write_text
from .metrics import THRESHOLDS

TITLES = {"refshapes": "RefShapes", "refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
TITLES |= {"grefcoco": "gRefCOCO", "reasonseg": "ReasonSeg"}
FIGURES = {"ciou": "cIoU", "giou": "gIoU"} | {f"precision_{t}": f"P@{t}" for t in THRESHOLDS}
FIGURES |= {"n_acc": "N-acc", "t_acc": "T-acc", "retention": "relative"}
MISSING = "–"  # noqa: RUF001


def write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """
    Writes `table.md`, `table.tex` and, for each protocol, `retention-PROTOCOL.png`, made of `evaluate`'s results.

    Raises:
        ValueError: pandas, tabulate or matplotlib is not installed.
    """
    rows = report["results"]
    write_text(folder / "table.md", markdown(rows, len(report["broken"])))
    write_text(folder / "table.tex", latex(rows))
    return [folder / "table.md", folder / "table.tex", *plot_retention(rows, folder)]


def paper_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each protocol a title and the paper's table of cIoU, in Markdown."""
    return [
        part
        for protocol, of_protocol in _by_protocol(rows)
        for part in (f"## cIoU, protocol {protocol}", markdown_table(_paper_table(of_protocol)))
    ]


def markdown(rows: Sequence[dict[str, Any]], num_broken: int = 0) -> str:
    """The paper's tables, then every figure with its confidence interval."""
    parts = paper_tables(rows)
    parts += ["## All figures, in percent, with 95 % confidence intervals (bootstrap over images)"]
    parts += [
        markdown_table(
            {
                "data": _title(row["data"]),
                "split": row["split"],
                "protocol": row["protocol"],
                "method": row["variant"],
                "tokens": _tokens(row["kept"]),
            }
            | {title: with_interval(row, name) for name, title in FIGURES.items()}
            | {name: row[name] for name in ("expressions", "images")}
            for row in rows
        )
    ]
    if num_broken:
        parts.append(f"{num_broken} expressions were skipped, because they or their images could not be read.")
    return "\n\n".join(parts) + "\n"


def latex(rows: Sequence[dict[str, Any]]) -> str:
    """The paper's table of cIoU for each protocol; needs the package booktabs."""
    tables = []
    for protocol, of_protocol in _by_protocol(rows):
        table = _paper_table(of_protocol).replace(MISSING, "--")
        columns = f"rl{'c' * (table.shape[1] - 2)}"
        body = table.to_latex(index=False, escape=True, column_format=columns)
        tables.append(f"% cIoU in percent, protocol {protocol}\n{body}")
    return "\n".join(tables)


def plot_retention(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """cIoU relative to all tokens, mean over the splits, against the tokens kept; a line for each method."""
    paths = []
    for protocol, of_protocol in _by_protocol(rows):
        if "retention" not in of_protocol:
            continue
        of_protocol = of_protocol.astype({"retention": float, "kept": float})
        mean = of_protocol.groupby(["variant", "retained"], sort=False)[["kept", "retention"]].mean().dropna()
        methods = [method for method in mean.index.unique("variant") if method != "none"]
        if not methods:
            continue
        figure = required("matplotlib.figure").Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method in methods:
            points = mean[mean.index.isin([method, "none"], "variant")].sort_values("kept")
            axes.plot(points["kept"], points["retention"], marker="o", label=method)
        axes.set(xlabel="visual tokens kept", ylabel="cIoU relative to all tokens, %", title=f"protocol {protocol}")
        axes.grid(alpha=0.3)
        axes.legend()
        paths.append(folder / f"retention-{protocol}.png")
        with replacing(paths[-1]) as temporary:
            figure.savefig(temporary, dpi=150)
    return paths


def markdown_table(rows: Any) -> str:
    """Rows, or a data frame, as a Markdown table of their cells as they are."""
    frame = required("pandas").DataFrame(rows)
    required("tabulate")  # which pandas loads itself, with an error that does not say how to install it
    return frame.to_markdown(index=False, disable_numparse=True)


def with_interval(row: dict[str, Any], name: str) -> str:
    """A figure of a result with its interval: `"61.2 [58.0, 64.1]"`."""
    if row.get(name) is None or row[f"{name}_low"] is None:
        return _number(row.get(name))
    return f"{row[name]:.1f} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"


def _by_protocol(rows: Sequence[dict[str, Any]]) -> Any:
    """Each protocol with a data frame of its rows."""
    frame = required("pandas").DataFrame(rows)
    return frame.groupby("protocol", sort=False)


def _paper_table(rows: Any) -> Any:
    """
    Tokens kept (mean over the splits), method, the cIoU of each split, their mean, and the mean relative to all
    tokens, as texts.
    """
    by_split = rows.pivot(index=["retained", "variant"], columns=["data", "split"], values="ciou").astype(float)
    # In the order of the results, most tokens first; a pivot sorts by name
    kept = rows.astype({"kept": float}).groupby(["retained", "variant"], sort=False)["kept"].mean()
    kept = kept.sort_values(ascending=False, kind="stable")
    splits = rows[["data", "split"]].drop_duplicates().itertuples(index=False, name=None)
    table = by_split.loc[list(kept.index), list(splits)]
    table.columns = [f"{_title(name)} {split}" for name, split in table.columns]
    table["average"] = table.mean(axis=1)
    whole = table.loc[table.index.get_level_values("variant") == "none", "average"]
    relative = 100 * table["average"] / (whole.iloc[0] if len(whole) else float("nan"))
    table = table.map(_number).assign(relative=relative.map(lambda value: _number(value, " %")))
    table = table.rename_axis(["tokens", "method"]).reset_index()
    return table.assign(tokens=[_tokens(number) for number in kept])


def _title(name: str) -> str:
    """A dataset's own spelling; of a path its last part."""
    base, _, partition = name.partition(":")
    return TITLES.get(base, Path(name).name) + f" ({partition})" * bool(partition and base in TITLES)


def _tokens(kept: float | None) -> str:
    return MISSING if kept is None or kept != kept else f"{round(kept, 1):g}"


def _number(value: float | None, unit: str = "") -> str:
    return MISSING if value is None or value != value else f"{value:.1f}{unit}"


__all__ = ["latex", "markdown", "markdown_table", "paper_tables", "plot_retention", "with_interval", "write_report"]
