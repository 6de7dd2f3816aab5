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
"""`litelvlm diagnose`: whether the similarity reversal holds for a CLIP on some data."""

import argparse
import json
from typing import Any

from .flags import BUDGETS, add_command, add_data, add_methods, add_model


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "diagnose",
        help="tell whether the similarity reversal holds for a CLIP on some data",
        description="Needs no language model. Prints a verdict, and writes diagnosis.json and heatmaps.png; --model "
        "may be a CLIP too.",
    )
    add_model(parser, device_map=False)
    parser.add_argument(
        "--parent", metavar="NAME", help="the CLIP or SigLIP that the vision tower comes from, to compare it with"
    )
    add_data(parser)
    add_methods(parser, " ".join(BUDGETS))
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..evaluation.clip import load_clip
    from ..evaluation.diagnose import diagnose
    from ..extras import required
    from ..hub import check_reachable
    from ..modeling.guide_litelvlm import load_parent
    from ..tiny import TINY_MODEL
    from ..writing import write_text
    from .loading import check_data_is_kept, load_data, pick_device, pick_dtype
    from .planning import plan

    for library in ("matplotlib", "sklearn"):
        required(library)
    check_data_is_kept(options, "diagnosis.json")
    device = pick_device(options.device)
    model, processor = load_clip(str(options.model or TINY_MODEL), pick_dtype(options.dtype, device))
    model = model.to(device)
    parent = None
    if options.parent is not None:
        check_reachable(options.parent)
        parent = load_parent(options.parent, model.config.vision_config, dtype=model.dtype).to(device).eval()
    budgets = options.num_retained_tokens or list(BUDGETS)
    runs = [run for run in plan(["generation"], options.methods, budgets, model.config) if run.method != "none"]
    data = load_data(options, model.config)
    report = diagnose(
        model, processor, data, runs, options.output, seed=options.seed, skip_broken=options.skip_broken, parent=parent
    )
    write_text(options.output / "diagnosis.json", json.dumps(report, indent=2) + "\n")
    return report | {"files": [str(options.output / name) for name in ("diagnosis.json", "heatmaps.png")]}


def show(report: dict[str, Any]) -> None:
    print(report["verdict"])
    if report["tower"] is not None:
        print(report["tower"])
    for name, (mean, low, high) in report["figures"].items():
        print(f"{name:<40} {mean:8.3f}  [{low:.3f}, {high:.3f}]")
    seen = f"{report['expressions']} expressions of {report['images']} images"
    print(f"{seen}; {report['left_out']} without a patch of their own, {len(report['broken'])} unreadable")
    print("\n".join(report["files"]))


__all__ = ["add_parser", "run", "show"]
