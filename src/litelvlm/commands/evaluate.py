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
"""`litelvlm evaluate`: masks measured on referring-segmentation data."""

import argparse
from datetime import timedelta
from typing import Any

from .flags import BUDGETS, add_command, add_data, add_methods, add_model


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "evaluate",
        help="measure masks on referring-segmentation data",
        description="Writes results.json, table.md, table.tex and plots into a folder. Stopped and started again with "
        "the same options, it goes on. `accelerate launch -m litelvlm evaluate ...` shares images among processes.",
    )
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "--protocol", nargs="+", default=["generation"], help="generation, conversation or both (default: generation)"
    )
    add_methods(parser, " ".join(BUDGETS))
    return parser


def run(options: argparse.Namespace) -> dict[str, Any] | None:
    """The report is `None` on all processes but the main one."""
    from accelerate import PartialState

    from ..configuration.configuration_litelvlm import check_choice
    from ..evaluation.evaluate import evaluate
    from ..evaluation.protocol import PROTOCOLS
    from ..evaluation.report import write_report
    from ..extras import required
    from .loading import check_data_is_kept, load_data, load_model, pick_device
    from .planning import plan

    # Before the first image, not after the last
    for library in ("matplotlib", "pandas", "tabulate"):
        required(library)
    for name in options.protocol:
        check_choice("--protocol", name, PROTOCOLS)
    check_data_is_kept(options, "results.json")
    # One process may have far more to do than another before they meet
    state = PartialState(cpu=options.device == "cpu", timeout=timedelta(days=1))
    if options.device_map and state.num_processes > 1:
        raise ValueError("--device-map spreads one model over all devices; leave it out where processes share them.")
    device = state.device if options.device is None else pick_device(options.device)
    model, processor = load_model(options, device)
    if model.config.sam_config is None:
        raise ValueError("The model answers in text only, so there are no masks to evaluate; take one with a SAM.")
    runs = plan(options.protocol, options.methods, options.num_retained_tokens or list(BUDGETS), model.config)
    data = load_data(options, model.config)
    report = evaluate(
        model.eval(), processor, data, runs, options.output, seed=options.seed, skip_broken=options.skip_broken
    )
    state.destroy_process_group()
    if report is not None:
        report["files"] = [str(path) for path in write_report(report, options.output)]
    return report


def show(report: dict[str, Any]) -> None:
    from ..evaluation.report import paper_tables

    print("\n\n".join(paper_tables(report["results"])))
    if report["broken"]:
        print(f"\n{len(report['broken'])} expressions were skipped, the first: {report['broken'][0]}")
    print("\n".join(report["files"]))


__all__ = ["add_parser", "run", "show"]
