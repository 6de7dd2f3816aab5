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
Prints the README's table of the embedded model: free-running answers on RefShapes, one expression a conversation.

    python scripts/evaluate_embedded.py --images 60 [--card hub_cards/results/litelvlm-tiny.json]

It is `litelvlm evaluate` with its defaults. Its scenes are new to the model, as training has splits of its own.
Budgets are the shares of visual tokens that the paper keeps: all, 192, 128 and 64 of 576.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from litelvlm.cli import main as litelvlm
from litelvlm.hub_cards.cards import results_table


def card_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of results.json as the cards have it: a share is said as that of 576 tokens."""
    share = round(row["retained"] * 9 / row["patches"]) * 64
    figures = {name: round(row[name], 2) for name in ("ciou", "giou")}
    kept = {name: row[name] for name in ("split", "retained", "patches")} | {"share": str(share)}
    return kept | figures | {"expressions": row["expressions"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="60", help="scenes per split")
    parser.add_argument("--output", type=Path, default=Path("runs/embedded"), help="folder of the evaluation")
    parser.add_argument("--card", type=Path, help="JSON file whose `rows` to replace: the figures of the model card")
    options = parser.parse_args()
    arguments = ["--images", options.images, "--device", "cpu", "--output", str(options.output)]
    if litelvlm(["evaluate", *arguments]):
        raise SystemExit(2)
    results = json.loads((options.output / "results.json").read_text(encoding="utf-8"))["results"]
    rows = [card_row(row) for row in results]
    print(results_table(rows))
    if options.card:
        known = json.loads(options.card.read_text(encoding="utf-8"))
        options.card.write_text(json.dumps(known | {"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
