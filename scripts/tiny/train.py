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
both frozen; then all but CLIP; then CLIP's guide anew, reversed; at last the language model, with patches missing,
first without masks and then with them.

    python scripts/tiny/train.py see --output runs/tiny
    python scripts/tiny/train.py clip --output runs/tiny
    python scripts/tiny/train.py sam --output runs/tiny
    python scripts/tiny/train.py lvlm --output runs/tiny
    python scripts/tiny/train.py finish --output runs/tiny
    python scripts/tiny/train.py guide --output runs/tiny
    python scripts/tiny/train.py dropout --output runs/tiny
    python scripts/tiny/train.py masks --output runs/tiny

SAM needs nothing of CLIP, and may be trained at the same time, and so do guide and dropout of each other. Each stage
goes on from its last checkpoint in the output folder, to the step and without showing a scene twice, and logs its
losses to a CSV file there.
"""

import argparse
import math
from pathlib import Path

from stage_clip import train_clip
from stage_dropout import train_dropout, train_masks
from stage_finish import train_finish
from stage_guide import train_guide
from stage_lvlm import train_lvlm
from stage_sam import train_sam
from stage_see import train_see

# Of each stage: its function, steps, images per step, highest learning rate and optimizer
STAGES = {
    "see": (train_see, 1500, 32, 2e-3, "muon"),
    "clip": (train_clip, 800, 48, 1.5e-3, "muon"),
    "sam": (train_sam, 1800, 16, 1.5e-3, "muon"),
    "lvlm": (train_lvlm, 3400, 16, 2e-3, "muon"),
    "finish": (train_finish, 2600, 16, 7e-4, "muon"),
    "guide": (train_guide, 300, 32, 1.5e-3, "adamw"),
    "dropout": (train_dropout, 1500, 12, 4e-4, "adamw"),
    "masks": (train_masks, 1200, 8, 3e-4, "adamw"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    for stage, (function, steps, batch_size, lr, optimizer) in STAGES.items():
        sub = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(function=function)
        sub.add_argument("--output", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and logs")
        sub.add_argument("--steps", type=int, default=steps, help="length of the learning-rate schedule")
        sub.add_argument("--batch-size", type=int, default=batch_size, help="images per step")
        sub.add_argument("--lr", type=float, default=lr, help="highest learning rate")
        sub.add_argument("--optimizer", choices=["muon", "adamw"], default=optimizer, help="Muon needs bfloat16")
        sub.add_argument("--warmup", type=int, default=100, help="steps to the highest learning rate")
        sub.add_argument("--seed", type=int, default=0, help="of the scenes and the initial weights")
        sub.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
        sub.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="bf16", help="as in accelerate")
        sub.add_argument("--every", type=int, default=100, help="steps between evaluations and checkpoints")
        if stage == "guide":
            sub.add_argument("--reversal-weight", type=float, default=20.0, help="0 leaves the contrastive loss alone")
            sub.add_argument("--whole-scenes", action="store_true", help="captions name all objects of a scene")
        sub.add_argument("--time-limit", type=float, default=math.inf, help="minutes, then stop resumably")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.function(options)


if __name__ == "__main__":
    main()
