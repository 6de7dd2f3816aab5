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
"""`litelvlm export`: a model's parts in the format of another library."""

import argparse
from typing import Any

from .flags import add_command, add_dtype

FORMATS = ("llava-hf",)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "export",
        help="write the language model for an engine that knows LLaVA",
        description="Writes vision tower, projector and language model as a plain LLaVA, without the pruning and "
        "without SAM; the folder appears when everything in it is written.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of the model to export")
    parser.add_argument("dest", metavar="DEST", help="the folder to make")
    parser.add_argument("--format", default="llava-hf", help="llava-hf: as Transformers' LLaVA (default: llava-hf)")
    add_dtype(parser, "as saved", runs=False)
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError or OSError for what the user can mend."""
    from pathlib import Path

    from ..configuration.configuration_litelvlm import check_choice

    check_choice("--format", options.format, FORMATS)

    import torch

    from ..conversion.destination import check_free
    from ..conversion.llava_hf import export_llava
    from .loading import load_model, pick_dtype

    pick_dtype(options.dtype)
    check_free(Path(options.dest))
    options.device_map = None
    model, processor = load_model(options, torch.device("cpu"))
    return export_llava(model, processor, options.dest)


def show(report: dict[str, Any]) -> None:
    millions = report["num_parameters"] / 1e6
    print(f"exported: {report['architecture']}, {millions:,.1f} million parameters, {report['dtype']}")
    if report["seg_token_id"] is not None:
        print(f"[SEG]:    token {report['seg_token_id']}")


__all__ = ["add_parser", "run", "show"]
