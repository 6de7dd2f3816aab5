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
"""`litelvlm mcp`: a model as a tool of agents."""

import argparse
from pathlib import Path
from typing import Any

from ..extras import needing, required
from .flags import add_command, add_device, add_dtype, add_question


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "mcp",
        help="offer a model to agents, by the Model Context Protocol",
        description="Serves the tool `segment(image, texts)` on standard input and output, as agents start it.",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="folder or Hub id (default: the embedded model)")
    add_dtype(parser, "as saved")
    add_device(parser)
    parser.add_argument(
        "--allow-folder",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="let agents name images in these folders by their paths (default: images come as base64)",
    )
    add_question(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Serves until standard input ends. Raises ValueError or OSError for what the user can mend."""
    with needing("mcp"):
        from ..serving.mcp import build_server
    from .loading import load_model, pick_device

    required("pycocotools.mask", "formats")
    options.device_map = None
    model, processor = load_model(options, pick_device(options.device))
    choices = {"num_retained_tokens": options.num_retained_tokens, "pruning_method": options.method}
    model.config.resolve_pruning(**choices)
    choices |= {"max_new_tokens": options.max_new_tokens} if options.answer is None else {"answer": options.answer}
    build_server(model, processor, options.allow_folder, **choices).run()


def show(report: dict[str, Any]) -> None:
    """Nothing: standard output is the agent's."""


__all__ = ["add_parser", "run", "show"]
