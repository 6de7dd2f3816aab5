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
What a user waits for from the shell to the mask, each time in a new process, beside what Transformers takes to import.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

# What each process does; the first two are what any command of Transformers waits for
_IMPORTS = "import torch, transformers"
_CLASSES = "from transformers import CLIPModel, LlavaForConditionalGeneration, SamModel"
COMMANDS = {
    "import torch, transformers": ["-c", _IMPORTS],
    "import of Transformers' model classes": ["-c", _CLASSES],
    "litelvlm segment": ["-m", "litelvlm", "segment", "example", "the red circle", "--output", "overlay.png"],
}


def measure_start_up(num_runs: int = 3) -> dict[str, dict[str, Any]]:
    """
    Times each command in processes of its own, in turn.

    Args:
        num_runs (`int`): rounds. The first is kept apart, as the files may not be in memory yet.

    Returns:
        Per command `first` and `median` of the others, in seconds, and `ratio` of that to the bare imports.
    """
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(num_runs + 1):
            for name, arguments in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(own[1:]) for name, own in times.items()}
    bare = medians["import torch, transformers"]
    return {
        name: {"first": own[0], "median": medians[name], "ratio": medians[name] / bare} for name, own in times.items()
    }


__all__ = ["measure_start_up"]
