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
"""`litelvlm convert`: a LiteLVLM folder of a LISA, GLaMM or LLaVA checkpoint."""

import argparse
from collections import Counter
from typing import Any

from .flags import add_command, add_dtype

# Of forms whose name alone does not tell
_PROMPTS = {
    None: "the checkpoint has a chat template of its own",
    "paligemma": "one question and its answer, as PaliGemma's processor writes them; it has no chat template",
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "convert",
        help="make a LiteLVLM folder of a LISA, GLaMM or LLaVA checkpoint",
        description="Reads the checkpoint shard by shard; the folder appears when everything in it is written.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="folder or Hub id of the checkpoint, or PaliGemma's mask decoder (.npz)"
    )
    parser.add_argument("dest", metavar="DEST", help="the folder to make")
    parser.add_argument("--kind", help="lisa, sesame, gsva, lisa-plus, read, glamm or llava (default: found out)")
    parser.add_argument(
        "--clip",
        metavar="NAME",
        help="its CLIP or SigLIP: folder, Hub id, open_clip:ARCH/TAG or hf-hub:ORG/NAME (default: as configured)",
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id (default: the checkpoint's own)")
    parser.add_argument("--conversation", help="LISA's: llava_v1 or llava_llama_2 (default: by its name)")
    parser.add_argument("--seg-token-id", type=int, metavar="ID", help="id of [SEG], where no tokenizer tells")
    add_dtype(parser, "as the checkpoint's configuration says", runs=False)
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a file (default: 5GB)")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..conversion.convert import convert
    from ..conversion.mask_decoder import convert_mask_decoder

    names = ("kind", "clip", "tokenizer", "conversation", "seg_token_id", "dtype", "max_shard_size")
    if options.source.endswith(".npz"):
        if given := [name for name in names[:5] if getattr(options, name) is not None]:
            raise ValueError(
                f"--{given[0].replace('_', '-')} is of a checkpoint, but {options.source!r} is a mask decoder; leave "
                "it out."
            )
        return convert_mask_decoder(options.source, options.dest)
    return convert(options.source, options.dest, **{name: getattr(options, name) for name in names})


def show(report: dict[str, Any]) -> None:
    from ..conversion.convert import REPORT

    if report["kind"] == "mask-decoder":
        print(f"kind:         PaliGemma's mask decoder, {report['num_parameters'] / 1e6:,.1f} million parameters")
        print(f"left out:     {len(report['left_out'])} arrays that are not the decoder's")
        return
    print(
        f"kind:         {report['kind']}, {report['num_parameters'] / 1e6:,.1f} million parameters, {report['dtype']}"
    )
    print(f"vision tower: {report['vision_tower']}")
    for reason, number in Counter(entry["reason"] for entry in report["dropped"]).items():
        print(f"left out:     {number} tensors: {reason}")
    if report["left_out"] is not None:
        print(f"left out:     {report['left_out']}")
    if report["processor"]:
        print(f"prompts:      {_PROMPTS.get(report['conversation'], report['conversation'])}")
    else:
        print("no processor: the checkpoint has no tokenizer and none was named; the folder holds the model only")
    print(f"report:       {REPORT} in the folder, with a hash of every tensor")


__all__ = ["add_parser", "run", "show"]
