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
"""Tables and plots of what was measured."""

import json

from litelvlm.commands.main import main
from litelvlm.evaluation.report import latex, markdown, markdown_table


def row(split, variant, retained, ciou, protocol="generation", kept=None):
    interval = (None, None) if ciou is None else (ciou - 9, ciou + 9)
    figures = {"data": "refcoco", "split": split, "protocol": protocol, "variant": variant, "retained": retained}
    figures |= {
        "kept": float(retained) if kept is None else kept,
        "expressions": 6,
        "images": 2,
        "giou": None,
        "ciou": ciou,
    }
    return figures | dict(zip(("ciou_low", "ciou_high"), interval, strict=True))


def cells(text):
    """Lines of a Markdown table as lists of cells, without the rule below the head."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


ROWS = [
    row("val", "trim", 64, 30.0),
    row("val", "litelvlm", 64, 60.04),
    row("val", "none", 256, 80.0),
    row("testA", "trim", 64, None),
    row("testA", "litelvlm", 64, 20.0),
    row("testA", "none", 256, 80.0),
]


def test_paper_table_has_most_tokens_first_and_shares_of_all_tokens():
    table, everything = markdown(ROWS, num_broken=2).split("## All figures")
    assert cells(table) == [
        ["tokens", "method", "RefCOCO val", "RefCOCO testA", "average", "relative"],
        ["256", "none", "80.0", "80.0", "80.0", "100.0 %"],
        ["64", "trim", "30.0", "–", "30.0", "37.5 %"],  # noqa: RUF001
        ["64", "litelvlm", "60.0", "20.0", "40.0", "50.0 %"],
    ]
    assert cells(everything)[1][:6] == ["RefCOCO", "val", "generation", "trim", "64", "30.0 [21.0, 39.0]"]
    assert everything.endswith("2 expressions were skipped, because they or their images could not be read.\n")


def test_tokens_are_those_kept_where_a_method_kept_fewer_than_it_was_allowed():
    adaptive = [row("val", "trim", 200, 30.0, kept=53.5), row("testA", "trim", 200, 40.0, kept=54.0)]
    rows = [*adaptive, row("val", "none", 256, 80.0), row("val", "litelvlm", 64, 60.0)]
    table, everything = markdown(rows).split("## All figures")
    assert [cells_of[:2] for cells_of in cells(table)[1:]] == [["256", "none"], ["64", "litelvlm"], ["53.8", "trim"]]
    assert [cells_of[4] for cells_of in cells(everything)[1:]] == ["53.5", "54", "256", "64"]
    assert "53.8 & trim" in latex(rows)


def test_each_protocol_has_a_table_and_none_is_relative_without_all_tokens():
    rows = [ROWS[0], row("val", "trim", 64, 50.0, "conversation")]
    tables = markdown(rows).split("## ")[1:3]
    assert [table.partition("\n")[0] for table in tables] == [
        "cIoU, protocol generation",
        "cIoU, protocol conversation",
    ]
    assert cells(tables[1])[1] == ["64", "trim", "50.0", "50.0", "–"]  # noqa: RUF001


def test_latex_escapes_what_latex_reads_as_commands():
    table = latex([row("val", "litelvlm:token_order=raster", 64, 50.0), row("val", "none", 256, 100.0)])
    assert r"64 & litelvlm:token\_order=raster & 50.0 & 50.0 & 50.0 \% \\" in table
    assert r"\toprule" in table and r"\bottomrule" in table and r"\begin{tabular}{rlccc}" in table


def test_cells_are_written_as_they_are():
    assert cells(markdown_table([{"tokens": "064", "ciou": "50.0"}])) == [["tokens", "ciou"], ["064", "50.0"]]


def test_results_are_tables_and_plots_too(tmp_path, capsys):
    options = ["--data", "refshapes", "--split", "val", "testA", "--images", "1", "--device", "cpu"]
    assert main(["evaluate", *options, "--num-retained-tokens", "all", "192/576", "9", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    # Columns are padded to one width
    printed, markdown, latex = (
        " ".join(text.split())
        for text in (printed, *((tmp_path / name).read_text() for name in ("table.md", "table.tex")))
    )
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [row["retained"] for row in rows] == [256, 85, 9] * 2
    first = next(row for row in rows if row["split"] == "val" and row["retained"] == 85)
    assert (
        f"| 85 | litelvlm | {first['ciou']:.1f} |" in markdown and f"| 85 | litelvlm | {first['ciou']:.1f}" in printed
    )
    assert rf"85 & litelvlm & {first['ciou']:.1f} &" in latex and r"\toprule" in latex and r"100.0 \% \\" in latex
    assert (tmp_path / "retention-generation.png").read_bytes().startswith(b"\x89PNG")
