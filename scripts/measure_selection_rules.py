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
Measures both selection rules and their parts on the embedded model, and writes a table for each group of settings.

A rule makes two choices: the similarity-aware set (paper: half of the budget for one text, an intersection for
several; released: the whole budget, a union), and the contribution that ranks the context-aware patches (paper: the
raw product of query and key; released: their cosine). All four pairs are measured, at the paper's budgets (192, 128
and 64 of 576, as shares), for one text (generation) and for up to three texts that share a budget (conversation).

    python scripts/measure_selection_rules.py --settings shipped similarity_order=lowest,position_mode=original

It takes about 3 seconds a scene and group on one core, and goes on where it was stopped. The scenes are new to the
model, as training has a split of its own.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from litelvlm import LiteLVLMConfig, load_tiny
from litelvlm.data.registry import load_split, splits_of
from litelvlm.evaluation.evaluate import evaluate
from litelvlm.evaluation.protocol import PROTOCOLS
from litelvlm.evaluation.report import markdown_table, with_interval
from litelvlm.evaluation.runs import Run, parse_variant
from litelvlm.modeling.pruning_litelvlm import PruningSignals, register_token_selector, select_litelvlm

SHARES = (192, 128, 64)  # of 576
RULES = ("paper", "released")
MIXED = "litelvlm-mixed"
SHIPPED = "shipped"


@register_token_selector(MIXED)
def select_mixed(signals: PruningSignals, num_retained_tokens: int, config: LiteLVLMConfig) -> torch.Tensor:
    """The similarity-aware set of the configured rule, with the contribution of the other rule."""
    swapped = replace(signals, contribution=signals.cosine_contribution, cosine_contribution=signals.contribution)
    return select_litelvlm(swapped, num_retained_tokens, config)


def plan(settings: str, config: LiteLVLMConfig) -> dict[Run, tuple[str, str]]:
    """Runs, in the order of the table, with the rules of their set and of their contribution; of all tokens "all"."""
    fields = "" if settings == SHIPPED else f",{settings}"
    runs = {}
    for protocol in PROTOCOLS:
        runs[Run(protocol, "none", config.num_patches)] = ("all", "all")
        for share, of_set, of_contribution in product(SHARES, RULES, RULES):
            method = "litelvlm" if of_set == of_contribution else MIXED
            _, values, guide_form = parse_variant(f"{method}:selection_rule={of_set}{fields}", config)
            budget = round(share * config.num_patches / 576)
            runs[Run(protocol, method, budget, values, guide_form)] = (of_set, of_contribution)
    return runs


def table(results: list[dict[str, Any]], runs: dict[Run, tuple[str, str]]) -> str:
    """A Markdown table of cIoU with intervals: a line for each run, a column for each split."""
    lines = []
    for run, (of_set, of_contribution) in runs.items():
        asked = (run.protocol, run.variant, run.retained)
        found = [row for row in results if (row["protocol"], row["variant"], row["retained"]) == asked]
        line = {"protocol": run.protocol, "tokens": run.retained, "set": of_set, "contribution": of_contribution}
        lines.append(line | {row["split"]: with_interval(row, "ciou") for row in found})
    return markdown_table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="scenes per split (default: 100)")
    parser.add_argument("--seed", type=int, default=1234, help="another seed, other scenes")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=[SHIPPED],
        help=f"{SHIPPED} (the model's own), or fields such as similarity_order=lowest,position_mode=original",
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda:0 (default: cpu)")
    parser.add_argument("--output", type=Path, default=Path("runs/selection-rules"), help="folder of the evaluations")
    parser.add_argument(
        "--table", type=Path, default=Path("benchmarks/results/selection-rules.md"), help="Markdown file to write"
    )
    options = parser.parse_args()
    model, processor = load_tiny()
    model, config = model.to(options.device).eval(), model.config
    size = 2 * config.vision_config.image_size
    data = {
        ("refshapes", split): load_split("refshapes", split, num_images=options.images, size=size, seed=options.seed)
        for split in splits_of("refshapes")
    }
    parts = []
    for settings in options.settings:
        runs = plan(settings, config)
        report = evaluate(model, processor, data, list(runs), options.output / settings, seed=options.seed)
        if report is None:  # on all processes but the main one
            continue
        used = {"similarity_order": config.similarity_order, "position_mode": config.position_mode}
        used |= dict(part.split("=") for part in settings.split(",") if settings != SHIPPED)
        named = ", ".join(f"`{name}={value}`" for name, value in used.items())
        parts.append(f"## {named}\n\n{table(report['results'], runs)}")
    if parts:
        options.table.write_text("\n\n".join([introduction(options.images, options.seed, config), *parts]) + "\n")
        print(f"{options.table} is written.")


def introduction(num_images: int, seed: int, config: LiteLVLMConfig) -> str:
    return f"""# Both selection rules, and their parts

    python {shlex.join(sys.argv)}

cIoU in percent of the embedded model with 95 % intervals (bootstrap over images), on {num_images} scenes of each split
of RefShapes (seed {seed}), of {config.num_patches} visual tokens.

- **set**: the similarity-aware patches. `paper`: half of the budget for one text, the intersection over several;
  `released`: the whole budget for one text, the union over several.
- **contribution**: what ranks the context-aware patches, which fill the budget. `paper`: the raw product of query and
  key; `released`: their cosine.
- **generation** asks one text and lets the model answer; **conversation** asks up to three texts that share one budget
  and gives the answers. For one text the released set leaves no budget to the context, so that the contribution
  changes nothing there."""


if __name__ == "__main__":
    main()
