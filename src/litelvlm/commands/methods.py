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
"""`litelvlm methods`: the names that `--method` and `pruning_method` take."""

import argparse
import inspect
from typing import Any

from .flags import add_command

RULES = {
    "paper": "the default: of one text half of the budget, of several the intersection; the rest goes to context",
    "released": "the authors' published code: one text takes the whole budget, several the union of equal shares",
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    return add_command(
        commands,
        "methods",
        help="list the pruning methods",
        description="Names for --method and `pruning_method`, where each prunes, and where it was published.",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import registration  # noqa: F401
    from ..modeling.pruning_litelvlm import TokenSelector, get_pruning_method, list_pruning_methods

    methods = []
    for method in map(get_pruning_method, list_pruning_methods()):
        is_before = isinstance(method, TokenSelector)
        methods.append(
            {
                "name": method.name,
                "where": f"{'before' if is_before else 'inside'} the language model",
                "reads_text": method.needs_texts if isinstance(method, TokenSelector) else True,
                "summary": inspect.cleandoc(method.function.__doc__ or "").partition("\n")[0],
                "source": method.source,
            }
        )
        if method.name == "litelvlm":
            methods[-1]["selection_rules"] = RULES
    return {"methods": methods}


def show(report: dict[str, Any]) -> None:
    for method in report["methods"]:
        reads = "reads the text" if method["reads_text"] else "sees the image alone"
        print(f"{method['name']}: {method['where']}, {reads}\n  {method['summary']}\n  {method['source']}")
        for rule, meaning in method.get("selection_rules", {}).items():
            print(f"  selection_rule={rule}: {meaning}")


__all__ = ["add_parser", "run", "show"]
