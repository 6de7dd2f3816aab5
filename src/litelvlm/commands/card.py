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
"""`litelvlm card`: the model card of a folder."""

import argparse
from typing import Any

from .flags import add_command
from .push import show


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "card",
        help="write the model card of a folder",
        description="Writes README.md, and beside it handler.py and requirements.txt, which an endpoint runs.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of a saved or converted model")
    parser.add_argument("--target", help="whose card, such as litelvlm-lisa-7b (default: the folder's name)")
    parser.add_argument("--repo-id", metavar="REPO_ID", help="the repository its code names (default: org/TARGET)")
    parser.add_argument("--force", action="store_true", help="replace such files that have another content")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..hub_cards import write_card

    written = write_card(options.folder, options.target, options.repo_id, force=options.force)
    return {"files": [{"name": str(path)} for path in written]}


__all__ = ["add_parser", "run", "show"]
