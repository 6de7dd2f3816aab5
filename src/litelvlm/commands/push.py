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
"""`litelvlm push`: a folder published on the Hub."""

import argparse
from typing import Any

from .flags import add_command


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "push",
        help="publish a folder on the Hub",
        description="Checks that the folder is complete, makes the repository and uploads the files that a model "
        "repository holds, and no others; run again, it resumes.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of a saved or converted model, with its card")
    parser.add_argument("repo_id", metavar="REPO_ID", help="such as org/litelvlm-lisa-7b; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="only list every file, its size and its SHA-256")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..hub_cards import push

    return push(options.folder, options.repo_id, private=options.private, dry_run=options.dry_run)


def show(report: dict[str, Any]) -> None:
    for file in report["files"]:
        print("  ".join(str(file[name]) for name in ("sha256", "size", "name") if name in file))
    if "repo_id" in report:
        size = sum(file["size"] for file in report["files"])
        went = "would go" if report["dry_run"] else "went"
        if report["left_out"]:
            print(f"left out, as no part of a model repository: {', '.join(report['left_out'])}")
        print(f"{len(report['files'])} files, {size / 1e6:,.1f} MB, {went} to {report['repo_id']}")


__all__ = ["add_parser", "run", "show"]
