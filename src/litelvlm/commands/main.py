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
"""The command line: `litelvlm segment IMAGE TEXT`, and what `litelvlm --help` lists besides."""

import argparse
import json
import sys
from collections.abc import Sequence

from .. import __version__
from . import annotate, benchmark, card, convert, diagnose, evaluate, methods, push, segment

COMMANDS = (segment, annotate, methods, convert, card, push, evaluate, diagnose, benchmark)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="litelvlm", description="Fast pixel grounding by visual token pruning.")
    parser.add_argument("--version", action="version", version=f"litelvlm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run, show=command.show)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr that says what is wrong."""
    options = build_parser().parse_args(arguments)
    # Not at the top: `--help` and a wrong flag are answered without Transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        report = options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        reason = str(error).strip().splitlines()
        print(f"litelvlm: {reason[0] if reason else type(error).__name__}", file=sys.stderr)
        return 2
    if report is not None:  # of several processes one reports
        print(json.dumps(report)) if options.json else options.show(report)
    return 0


__all__ = ["build_parser", "main"]
