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
Trains `litelvlm-tiny` from scratch on RefShapes: CLIP, first to see and then to read; SAM; the language model with
both frozen; then all but CLIP; then CLIP's guide anew, reversed; at last the language model, with patches missing.

    python scripts/tiny/train.py --output runs/tiny
    python scripts/tiny/train.py guide dropout --output runs/tiny

The first command runs all stages in their order, the second those that are named; options hold for each of them. SAM
needs nothing of CLIP, and may be trained at the same time. Each stage goes on from its last checkpoint in the output
folder, to the step and without showing a scene twice, and logs its losses to a CSV file there; one that has ended is
not run again.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from stage_clip import train_clip
from stage_dropout import train_dropout
from stage_finish import train_finish
from stage_guide import train_guide
from stage_lvlm import train_lvlm
from stage_sam import train_sam
from stage_see import train_see

# Of each stage: its function, steps, images per step, warm-up steps, highest learning rate, optimizer and precision
STAGES = {
    "see": (train_see, 1500, 32, 100, 2e-3, "muon", "bf16"),
    "clip": (train_clip, 800, 48, 100, 1.5e-3, "muon", "bf16"),
    "sam": (train_sam, 1800, 16, 100, 1.5e-3, "muon", "bf16"),
    "lvlm": (train_lvlm, 3400, 16, 100, 2e-3, "muon", "bf16"),
    "finish": (train_finish, 2600, 16, 100, 7e-4, "muon", "bf16"),
    "guide": (train_guide, 300, 32, 20, 1.5e-3, "adamw", "no"),
    "dropout": (train_dropout, 3000, 32, 100, 8e-4, "adamw", "no"),
}
CHOSEN = ("steps", "batch_size", "warmup", "lr", "optimizer", "mixed_precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all of them if none is named")
    add("--output", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and logs (%(default)s)")
    add("--steps", type=int, help="length of the learning-rate schedule (as the stage has it)")
    add("--batch-size", type=int, help="images per step (as the stage has it)")
    add("--warmup", type=int, help="steps to the highest learning rate (as the stage has it)")
    add("--lr", type=float, help="highest learning rate (as the stage has it)")
    add("--optimizer", choices=["muon", "adamw"], help="Muon needs bfloat16 (as the stage has it)")
    add("--mixed-precision", choices=["no", "bf16", "fp16"], help="as in accelerate (as the stage has it)")
    add("--seed", type=int, default=0, help="of the scenes and the initial weights (%(default)s)")
    add("--workers", type=int, default=1, help="processes that draw scenes (%(default)s)")
    add("--every", type=int, default=100, help="steps between evaluations and checkpoints (%(default)s)")
    add("--reversal-weight", type=float, default=20.0, help="guide: 0 leaves the contrastive loss alone (%(default)s)")
    add("--whole-scenes", action="store_true", help="guide: captions name all objects of a scene")
    add("--time-limit", type=float, default=math.inf, help="minutes for each stage, then stop resumably")
    options = parser.parse_args()
    if unknown := [stage for stage in options.stages if stage not in STAGES]:
        parser.error(f"unknown stages {', '.join(unknown)}; allowed are {', '.join(STAGES)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for stage in options.stages or STAGES:
        run(stage, options)


def run(stage: str, options: argparse.Namespace) -> None:
    """One stage, with what it has where nothing was asked for."""
    function, *defaults = STAGES[stage]
    chosen: dict[str, Any] = {
        name: default if (asked := getattr(options, name)) is None else asked
        for name, default in zip(CHOSEN, defaults, strict=True)
    }
    print(f"{stage}: {', '.join(f'{name} {value}' for name, value in chosen.items())}", flush=True)
    function(argparse.Namespace(**vars(options) | chosen))


if __name__ == "__main__":
    main()
