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
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .. import __version__
from . import (
    annotate,
    benchmark,
    card,
    convert,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    mcp,
    methods,
    push,
    segment,
    serve,
    verify,
)

COMMANDS = (
    segment,
    demo,
    annotate,
    serve,
    mcp,
    methods,
    convert,
    export,
    verify,
    card,
    push,
    evaluate,
    diagnose,
    benchmark,
    doctor,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="litelvlm", description="Fast pixel grounding by visual token pruning.")
    parser.add_argument("--version", action="version", version=f"litelvlm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run, show=command.show)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Exit code 0; 2 after one line on stderr that says what is wrong; 130 after Ctrl-C, and 141 where the reader of a
    pipe has gone, as shells have it, without a word.
    """
    debug = False
    try:
        options = build_parser().parse_args(arguments)
        debug = options.debug
        quiet_libraries()
        report = options.run(options)
        if report is not None:  # of several processes one reports
            put_out(report, options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        if debug:
            raise
        print(f"litelvlm: {describe(error)}", file=sys.stderr)
        return 2
    return 0


def put_out(report: dict[str, Any], options: argparse.Namespace) -> None:
    """Raises OSError where it cannot be written; then nothing more is."""
    try:
        print(json.dumps(report)) if options.json else options.show(report)
        print(end="", flush=True)  # while an error can still be told
    except OSError:
        # Python would try what is left once more as it ends, and complain
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        raise


def quiet_libraries() -> None:
    # Not at the top: `--help` and a wrong flag are answered without Transformers
    from PIL import Image
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it tries again
    # Transformers imports torchao wherever that is installed, and what PyTorch says of it then no user can mend
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    # An image of so many pixels is refused, by an error of its own
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def describe(error: Exception) -> str:
    """One line. Where the error is none that this package raises, its type is a part of what is known."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    # Names may be as long as an image in base64
    reason = re.sub(r"\S{240,}", lambda found: f"{found[0][:80]}...{found[0][-40:]}", reason)
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return reason
    return f"{type(error).__name__}: {reason} (`--debug` shows where)"


__all__ = ["build_parser", "main"]
