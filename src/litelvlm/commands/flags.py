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
"""The flags that commands share, so that one thing has one name in all of them."""

import argparse
import os
from pathlib import Path
from typing import Any

BUDGETS = ("all", "192/576", "128/576", "64/576")
"""Numbers of retained tokens that are measured by default: the paper's, as shares, so that they fit any model."""


def add_command(commands: Any, name: str, help: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command, with the flags that all of them have."""
    parser = commands.add_parser(name, help=help, description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def add_model(parser: argparse.ArgumentParser, device_map: bool = True) -> None:
    """`--model`, `--dtype`, `--device` and, where a model may be spread, `--device-map`."""
    parser.add_argument("--model", metavar="NAME", help="folder or Hub id (default: the embedded model)")
    add_dtype(parser, "as saved")
    where = parser.add_mutually_exclusive_group()
    add_device(where)
    if device_map:
        where.add_argument("--device-map", metavar="MAP", help="how accelerate spreads the model, such as auto")


def add_dtype(parser: argparse.ArgumentParser, auto: str, runs: bool = True) -> None:
    """`--dtype`; `auto` says in words what that name stands for, and `runs` whether the model is to run right here."""
    fast = "auto-fast: bfloat16 where it is faster here than float32, else float32; " if runs else ""
    parser.add_argument(
        "--dtype",
        default="auto",
        help=f"of the weights: float32, bfloat16, float16, {fast}or auto: {auto} (default: auto)",
    )


def add_device(parser: Any, also: str = "") -> None:
    """`--device`, of a parser or of a group of flags that exclude each other."""
    parser.add_argument(
        "--device", help=f"such as cpu or cuda:0{also} (default: the accelerator where there is one, else cpu)"
    )


def add_question(parser: argparse.ArgumentParser) -> None:
    """How a text is asked: by which method, with how many tokens, and for what answer."""
    parser.add_argument("--method", help="pruning method, as `litelvlm methods` lists them (default: the model's)")
    parser.add_argument("--num-retained-tokens", type=_budget, metavar="K", help="visual tokens to keep")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--answer", metavar="TEXT", help='do not generate: take this answer, such as "It is [SEG]."')
    answer.add_argument("--max-new-tokens", type=int, default=32, help="length of the answer (default: 32)")


def _budget(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number; all are kept by --method none") from None


def add_data(parser: argparse.ArgumentParser) -> None:
    """What is measured: datasets, splits and how much of them."""
    parser.add_argument(
        "--data",
        nargs="+",
        default=["refshapes"],
        metavar="NAME",
        help="refshapes, refcoco, refcoco+, refcocog, grefcoco, reasonseg, refcoco:google and the like, or a .parquet "
        "or COCO .json file or a folder of them (default: refshapes)",
    )
    parser.add_argument("--data-root", default=".", metavar="DIR", help="folder of the RefCOCO family and ReasonSeg")
    parser.add_argument("--split", nargs="+", help="such as val testA (default: those that papers report)")
    parser.add_argument(
        "--images", type=int, metavar="N", help="only the first N images of each split (RefShapes has 500)"
    )
    parser.add_argument("--seed", type=int, default=1234, help="seed of the bootstrap and of RefShapes' scenes")
    parser.add_argument("--skip-broken", action="store_true", help="leave out and count what cannot be read")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write into")


def add_methods(parser: argparse.ArgumentParser, default: str) -> None:
    """`--methods` and `--num-retained-tokens`, several of each."""
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="pruning methods, with settings if wanted: litelvlm:selection_rule=released,token_order=raster "
        "(default: the model's)",
    )
    parser.add_argument(
        "--num-retained-tokens",
        nargs="+",
        metavar="K",
        help=f"visual tokens to keep: numbers, shares such as 192/576, or all (default: {default})",
    )


def prepare_ray() -> None:
    """Before Ray is imported, which reads it then: it tells nobody of its use."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


__all__ = [
    "BUDGETS",
    "add_command",
    "add_data",
    "add_device",
    "add_dtype",
    "add_methods",
    "add_model",
    "add_question",
    "prepare_ray",
]
