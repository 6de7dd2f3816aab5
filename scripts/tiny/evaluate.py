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
Measures the README's table of the embedded model: every pruning method and setting, with the paper's budgets (192, 128
and 64 of 576, as shares), on all splits of RefShapes; one expression a conversation, answered freely.

    python scripts/tiny/evaluate.py [--images 60] [--seed 1234] [--card hub_cards/results/litelvlm-tiny.jsonl]

It is `litelvlm evaluate` once for each budget, and goes on where it was stopped. The scenes are new to the model, as
training has a split of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from litelvlm import load_tiny
from litelvlm.baselines import average_tokens
from litelvlm.commands.main import main as litelvlm
from litelvlm.evaluation.evaluate import RESULTS
from litelvlm.hub_cards.cards import RECOMMENDED, results_table

SHARES = (192, 128, 64)  # of 576
SELECTORS = (
    *("uniform", "random", "trim", "cdpruner", "divprune"),
    *("visionzip", "vispruner", "prumerge", "prumerge-adaptive", "hiprune"),
)
INSIDE = ("fastv", "sparsevlm")  # which keep the positions of the un-pruned prompt by themselves
FIGURES = ("split", "retained", "patches", "expressions", "images", "ciou", "giou")  # of a result, as measured


def variants(budget: int) -> dict[str, str]:
    """What to measure, by the name that the table gives it; where that names no setting, it is the paper's."""
    quarter = f"num_context_tokens={budget // 4}"
    released = "selection_rule=released"
    lowest, highest = "similarity_order=lowest", "similarity_order=highest"
    consecutive, original = "position_mode=consecutive", "position_mode=original"
    recommended = f"{highest},{original},{quarter}"
    settings = {
        "litelvlm": f"{lowest},{consecutive}",
        "litelvlm, raster order": f"{lowest},{consecutive},token_order=raster",
        "litelvlm, original positions": f"{lowest},{original}",
        "litelvlm, original positions, a quarter for context": f"{lowest},{original},{quarter}",
        "litelvlm, released rule": f"{lowest},{consecutive},{released}",
        "litelvlm, released rule, original positions": f"{lowest},{original},{released}",
        "litelvlm, highest": f"{highest},{consecutive}",
        "litelvlm, highest, original positions": f"{highest},{original}",
        "litelvlm, highest, released rule, original positions": f"{highest},{original},{released}",
        RECOMMENDED: recommended,
        f"{RECOMMENDED}, expression": f"{recommended},guide_form=expression",
        f"{RECOMMENDED}, templates": f"{recommended},guide_form=templates",
    }
    ours = {name: f"litelvlm:{setting}" for name, setting in settings.items()}
    plain = {name: f"{name}:{consecutive}" for name in ("uniform", "random")}
    at_original = {f"{name}, original positions": f"{name}:{original}" for name in SELECTORS}
    return ours | plain | at_original | {name: name for name in INSIDE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="60", help="scenes per split")
    parser.add_argument("--seed", default="1234", help="another seed, other scenes")
    parser.add_argument("--output", type=Path, default=Path("runs/embedded"), help="folder of the evaluation")
    parser.add_argument("--card", type=Path, help="JSON Lines to write: the figures of the model card")
    options = parser.parse_args()
    model, _ = load_tiny()
    patches = model.config.num_patches
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        budget = round(share * patches / 576)
        names = {variant: name for name, variant in variants(budget).items()}
        folder = options.output / str(budget)
        # All tokens once
        budgets = ["all", str(budget)] if share == SHARES[0] else [str(budget)]
        asked = ["--images", options.images, "--seed", options.seed, "--device", "cpu", "--output", str(folder)]
        if litelvlm(["evaluate", *asked, "--num-retained-tokens", *budgets, "--methods", *names]):
            raise SystemExit(2)
        for row in json.loads((folder / RESULTS).read_text(encoding="utf-8"))["results"]:
            method = row["variant"].partition(":")[0]
            kept = {name: row[name] for name in FIGURES}
            kept |= {"layer_tokens": average_tokens(method, row["retained"], model.config)}
            rows.append({"method": names.get(row["variant"], row["variant"])} | kept)
    print(results_table(rows, "ciou"), results_table(rows, "giou"), sep="\n\n")
    if options.card:
        options.card.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
