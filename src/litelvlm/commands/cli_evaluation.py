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
"""The commands that measure: `litelvlm evaluate` and `litelvlm diagnose`."""

import argparse
import json
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from .. import TINY_MODEL
from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..conversion.convert import DTYPES
from ..data.registry import NAMES, load_split, splits_of
from ..data.samples import ReferringImage, required
from ..evaluation.clip import load_clip
from ..evaluation.diagnose import diagnose
from ..evaluation.evaluate import evaluate
from ..evaluation.protocol import PROTOCOLS
from ..evaluation.report import paper_tables, write_report
from ..evaluation.runs import Run, parse_variant

BUDGETS = ("all", "192/576", "128/576", "64/576")
"""Those of the paper, as shares, so that they hold for any number of patches."""


def add_commands(commands: Any) -> None:
    """Adds the sub-commands to those of `litelvlm`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure masks on referring-segmentation data",
        description="Writes results.json, table.md, table.tex and plots into a folder. Stopped and started again with "
        "the same options, it goes on. `accelerate launch -m litelvlm.commands.cli evaluate ...` "
        "shares the images among processes.",
    )
    evaluate.add_argument("--model", default=str(TINY_MODEL), help="folder or Hub id (default: the embedded model)")
    _add_data(evaluate)
    evaluate.add_argument(
        "--protocol", nargs="+", default=["generation"], choices=PROTOCOLS, help="default: generation"
    )
    _add_measured(evaluate)
    evaluate.set_defaults(run=evaluate_command, show=print_evaluation, json=False)

    diagnose = commands.add_parser(
        "diagnose",
        help="tell whether the similarity reversal holds for a CLIP on some data",
        description="Needs no language model. Prints a verdict, and writes diagnosis.json and heatmaps.png.",
    )
    diagnose.add_argument(
        "--model", default=str(TINY_MODEL), help="folder or Hub id, of a CLIP too (default: the embedded model)"
    )
    _add_data(diagnose)
    _add_measured(diagnose)
    diagnose.set_defaults(run=diagnose_command, show=print_diagnosis, json=False)


def _add_measured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="pruning methods, with settings if wanted: litelvlm:position_mode=original,token_order=raster "
        "(default: the model's)",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        default=BUDGETS,
        metavar="K",
        help=f"visual tokens to keep: numbers, shares or all (default: {' '.join(BUDGETS)})",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write into")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        default=["refshapes"],
        metavar="NAME",
        help=f"{', '.join(NAMES)}, refcoco:google and the like, or a .parquet or COCO .json file or a folder of them "
        "(default: refshapes)",
    )
    parser.add_argument("--data-root", default=".", metavar="DIR", help="folder of the RefCOCO family and ReasonSeg")
    parser.add_argument("--split", nargs="+", help="default: those that papers report")
    parser.add_argument(
        "--images", type=int, metavar="N", help="only the first N pictures of each split (RefShapes has 500)"
    )
    parser.add_argument("--seed", type=int, default=1234, help="of the bootstrap and of RefShapes' scenes")
    parser.add_argument("--skip-broken", action="store_true", help="leave out and count what cannot be read")
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: an accelerator if there is one)")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="of the weights (default: as saved)")


def evaluate_command(options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs `litelvlm evaluate`; the report is `None` on all processes but the main one."""
    required("matplotlib")
    # One process may have far more to do than another before they meet
    state = PartialState(cpu=options.device == "cpu", timeout=timedelta(days=1))
    from .cli import load  # which imports this module itself

    model, processor = load(options.model, options.dtype, torch.device(options.device or state.device))
    runs = plan(options.protocol, options.methods, options.budgets, model.config)
    data = load_data(options, 2 * model.config.backbone_config.vision_config.image_size)
    report = evaluate(
        model.eval(), processor, data, runs, options.output, seed=options.seed, skip_broken=options.skip_broken
    )
    state.destroy_process_group()
    if report is not None:
        report["files"] = [str(path) for path in write_report(report, options.output)]
    return report


def diagnose_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm diagnose`."""
    required("matplotlib")
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    model, processor = load_clip(options.model, dtype)
    model = model.to(options.device or PartialState().device)
    runs = [
        run for run in plan(["generation"], options.methods, options.budgets, model.config) if run.method != "none"
    ]
    data = load_data(options, 2 * model.config.backbone_config.vision_config.image_size)
    report = diagnose(model, processor, data, runs, options.output, seed=options.seed, skip_broken=options.skip_broken)
    (options.output / "diagnosis.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report | {"files": [str(options.output / name) for name in ("diagnosis.json", "heatmaps.png")]}


def plan(protocols: list[str], methods: list[str] | None, budgets: list[str], config: LiteLVLMConfig) -> list[Run]:
    """
    Every method with every budget in every protocol, and once all tokens if `"all"` is among the budgets.

    Raises:
        ValueError: an unknown method or setting, a budget that the model cannot have, or nothing to measure.
    """
    variants = [parse_variant(text, config) for text in methods or [config.pruning_method]]
    runs = []
    for protocol in protocols:
        for budget in budgets:
            retained = config.num_patches if budget == "all" else parse_budget(budget, config)
            if budget == "all":
                runs.append(Run(protocol, "none", retained))
            else:
                runs += [
                    Run(protocol, name, retained, values, form) for name, values, form in variants if name != "none"
                ]
    if not runs:
        raise ValueError("--methods names only 'none', which keeps all tokens; then --budgets must hold all.")
    return list(dict.fromkeys(runs))


def parse_budget(text: str, config: LiteLVLMConfig) -> int:
    """`"85"`, or `"192/576"` as a share of the model's visual tokens; a ValueError says what is allowed."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--budgets holds {text!r}; allowed are numbers, shares such as 192/576, and all.") from None
    retained = int(value) if "/" not in text and value.denominator == 1 else round(value * config.num_patches)
    config.resolve_pruning(retained)
    return retained


def load_data(options: argparse.Namespace, size: int) -> dict[tuple[str, str], list[ReferringImage]]:
    """The pictures of every data set and split that the options name."""
    if options.images is not None and options.images < 1:
        raise ValueError(f"--images is {options.images}; allowed are numbers of at least 1.")
    return {
        (name, split): load_split(
            name, split, options.data_root, num_images=options.images, size=size, seed=options.seed
        )
        for name in options.data
        for split in options.split or splits_of(name)
    }


def print_evaluation(report: dict[str, Any] | None) -> None:
    if report is None:
        return
    print("\n\n".join(paper_tables(report["results"])))
    if report["broken"]:
        print(f"\n{len(report['broken'])} expressions were skipped, the first: {report['broken'][0]}")
    print("\n".join(report["files"]))


def print_diagnosis(report: dict[str, Any]) -> None:
    print(report["verdict"])
    for name, (mean, low, high) in report["figures"].items():
        print(f"{name:<40} {mean:8.3f}  [{low:.3f}, {high:.3f}]")
    seen = f"{report['expressions']} expressions of {report['images']} pictures"
    print(f"{seen}; {report['left_out']} without a patch of their own, {len(report['broken'])} unreadable")
    print("\n".join(report["files"]))


__all__ = ["add_commands"]
