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
"""`litelvlm verify`: whether a folder of a model is complete, undamaged and in itself consistent."""

import argparse
from pathlib import Path
from typing import Any

from .flags import add_command, add_device, add_dtype


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "verify",
        help="look through a folder of a model",
        description="Looks at files, hashes, tensors, configuration and tokenizers, and runs one forward pass. Names "
        "the first thing that is wrong.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="of a saved, converted or downloaded model")
    add_dtype(parser, "as saved", runs=False)
    add_device(parser)
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..verification import check_files, check_forward
    from .loading import load_model, pick_device, pick_dtype

    pick_dtype(options.dtype)
    device = pick_device(options.device)
    files = check_files(options.folder)
    # Loading compares tensors with the configuration, and the tokenizers with the model
    model, processor = load_model(argparse.Namespace(**vars(options), model=options.folder, device_map=None), device)
    check_forward(model.eval(), processor)
    return {
        "folder": str(options.folder),
        "files": files,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def show(report: dict[str, Any]) -> None:
    for file in report["files"]:
        known = "as on the Hub" if file["expected"] else "nothing to compare with"
        print(f"{file['sha256']}  {file['size']}  {file['name']} ({known})")
    print(f"{report['folder']}: files, {report['parameters']:,} parameters, tokenizers and a forward pass are sound")


__all__ = ["add_parser", "run", "show"]
