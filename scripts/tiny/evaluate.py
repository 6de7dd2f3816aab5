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
Measures the table of the embedded model: `litelvlm` at its defaults, its parts and other settings, and every other
method at its own, with the paper's budgets (192, 128 and 64 of 576, as shares), on four splits of RefShapes; one
expression a conversation, answered freely.

    python scripts/tiny/evaluate.py [--images 40] [--seed 1234] [--model DIR] [--card FILE]

It is `litelvlm evaluate` once for each budget, and goes on where it was stopped. The scenes are new to the model, as
training has splits of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from litelvlm import TINY_MODEL
from litelvlm.baselines import average_tokens
from litelvlm.commands.main import main as litelvlm
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.evaluation.evaluate import RESULTS
from litelvlm.hub_cards.cards import results_table, tables_with_intervals
from litelvlm.modeling.pruning_litelvlm import list_pruning_methods

SHARES = (192, 128, 64)  # of 576
SPLITS = ("val", "testA", "testB", "testS")
# Of a result, as measured
FIGURES = ("split", "retained", "patches", "expressions", "images", "ciou", "ciou_low", "ciou_high", "giou")


def variants(budget: int) -> dict[str, str]:
    """What to measure, by the name that the table gives it; "litelvlm" alone is the method at its defaults."""
    settings = {
        "lowest similarity alone": "num_context_tokens=0",
        "context alone": f"num_context_tokens={budget}",
        "highest similarity": "similarity_order=highest",
        "released rule": "selection_rule=released",
        "raster order": "token_order=raster",
        "original positions": "position_mode=original",
        "expression": "guide_form=expression",
        "templates": "guide_form=templates",
    }
    ours = {"litelvlm": "litelvlm"} | {f"litelvlm, {name}": f"litelvlm:{text}" for name, text in settings.items()}
    return ours | {name: name for name in list_pruning_methods() if name != "litelvlm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="40", help="scenes per split")
    parser.add_argument("--seed", default="1234", help="another seed, other scenes")
    parser.add_argument("--model", type=Path, default=TINY_MODEL, help="folder of the model, such as one just trained")
    parser.add_argument("--output", type=Path, default=Path("runs/embedded"), help="folder of the evaluation")
    parser.add_argument("--card", type=Path, help="JSON Lines to write, such as hub_cards/results/litelvlm-tiny.jsonl")
    options = parser.parse_args()
    config = LiteLVLMConfig.from_pretrained(options.model)
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        budget = round(share * config.num_patches / 576)
        names = {variant: name for name, variant in variants(budget).items()}
        folder = options.output / str(budget)
        # All tokens once
        budgets = ["all", str(budget)] if share == SHARES[0] else [str(budget)]
        asked = ["--model", str(options.model), "--split", *SPLITS, "--images", options.images, "--seed", options.seed]
        asked += ["--device", "cpu", "--output", str(folder)]
        if litelvlm(["evaluate", *asked, "--num-retained-tokens", *budgets, "--methods", *names]):
            raise SystemExit(2)
        for row in json.loads((folder / RESULTS).read_text(encoding="utf-8"))["results"]:
            method = row["variant"].partition(":")[0]
            kept = {name: row[name] for name in FIGURES}
            in_layers = average_tokens(method, row["retained"], config)
            # What an adaptive method keeps, the images tell
            kept |= {"layer_tokens": in_layers if in_layers > row["retained"] else row["kept"]}
            rows.append({"method": names.get(row["variant"], row["variant"])} | kept)
    print(*tables_with_intervals(rows).values(), results_table(rows, "giou"), sep="\n\n")
    if options.card:
        options.card.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
