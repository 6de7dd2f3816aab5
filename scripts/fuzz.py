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
Hands hostile input to the readers of images, masks, annotations and budgets: each case ends in a right result, or in
one typed error that says something. The properties and what is drawn stand in tests/properties.py.

    python scripts/fuzz.py --cases 10000 --seconds 600 --seed 1

Prints for each property the number of cases and the finding, smallest first; exit code 1 if there is one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.properties import PROPERTIES

ROUND = 100  # cases
LENIENT = settings(
    database=None, deadline=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)


def fuzz(check: Callable[[Any], None], cases: int, seconds: float, number: int) -> tuple[int, BaseException | None]:
    """
    Args:
        check: a property.
        cases (`int`), seconds (`float`): how many to draw, and for how long about.
        number (`int`): the seed of the first round.

    Returns:
        How many cases were tried, those that make a finding smaller among them, and the finding.
    """
    tried, deadline = 0, time.monotonic() + seconds

    def counted(drawn: Any) -> None:
        nonlocal tried
        tried += 1
        check(drawn)

    # In rounds, as hypothesis itself knows no time limit
    while tried < cases and time.monotonic() < deadline:
        try:
            few = settings(LENIENT, max_examples=min(ROUND, cases - tried))
            few(seed(number)(given(PROPERTIES[check])(counted)))()
        except Exception as error:
            return tried, error
        number += 1
    return tried, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="of all properties together (default: 10000)")
    parser.add_argument("--seconds", type=float, default=600, help="limit, equal for each property (default: 600)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total, findings = 0, 0
    for check in PROPERTIES:
        share = len(PROPERTIES)
        tried, error = fuzz(check, options.cases // share, options.seconds / share, options.seed)
        total, findings = total + tried, findings + (error is not None)
        found = "nothing found" if error is None else f"FOUND {type(error).__name__}: {error}"
        print(f"{check.__name__}: {tried} cases, {found}", flush=True)
        for note in getattr(error, "__notes__", []):
            print(f"    {note}", flush=True)
    print(f"{total} cases, {findings} findings, seed {options.seed}")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
