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
import inspect
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging

from .. import EXAMPLE_IMAGE, TINY_MODEL, LiteLVLMForSegmentation, LiteLVLMProcessor, __version__
from ..benchmark.benchmark import add_commands as add_benchmark_command
from ..conversion.convert import DTYPES, REPORT, convert
from ..conversion.processors import CONVERSATIONS
from ..hub_cards import TARGETS, push, write_card
from ..modeling.images_litelvlm import load_rgb
from ..modeling.pruning_litelvlm import (
    PruningSignals,
    TokenSelector,
    get_pruning_method,
    list_pruning_methods,
    similarity_aware_patches,
)
from ..visualization import overlay_masks, overlay_tokens, side_by_side
from .cli_evaluation import add_commands


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="litelvlm", description="Fast pixel grounding by visual token pruning.")
    parser.add_argument("--version", action="version", version=f"litelvlm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    segment = commands.add_parser(
        "segment",
        help="segment what a text refers to in a picture",
        description="Prints the answer, the time per stage and the tokens kept, and writes pictures if asked to.",
    )
    segment.add_argument("image", metavar="IMAGE", help="path or URL of a picture; 'example' is the shipped one")
    segment.add_argument("text", metavar="TEXT", help='what to segment, such as "the red circle"')
    segment.add_argument("--model", default=str(TINY_MODEL), help="folder or Hub id (default: the embedded model)")
    segment.add_argument("--num-retained-tokens", type=int, metavar="K", help="visual tokens to keep")
    segment.add_argument("--method", help="pruning method (default: the model's; 'none' keeps all tokens)")
    segment.add_argument("--device", default="cpu", help="such as cpu or cuda:0 (default: cpu)")
    segment.add_argument("--dtype", default="auto", choices=DTYPES, help="of the weights (default: as saved)")
    segment.add_argument("--max-new-tokens", type=int, default=32, help="length of the answer (default: 32)")
    segment.add_argument("--output", type=Path, metavar="PNG", help="write the picture with the mask over it")
    segment.add_argument("--mask", type=Path, metavar="PNG", help="write the mask: 255 inside, 0 outside")
    segment.add_argument("--show-tokens", action="store_true", help="show the retained patches too, beside the mask")
    segment.add_argument("--json", action="store_true", help="print one JSON object")
    segment.set_defaults(run=segment_command, show=print_report)

    methods = commands.add_parser(
        "methods",
        help="list the pruning methods",
        description="Names for --method and `pruning_method`, where each prunes, and where it was published.",
    )
    methods.add_argument("--json", action="store_true", help="print one JSON object")
    methods.set_defaults(run=methods_command, show=print_methods)

    convert = commands.add_parser(
        "convert",
        help="make a LiteLVLM folder of a LISA, GLaMM or LLaVA checkpoint",
        description="Reads the checkpoint shard by shard; the folder appears when everything in it is written.",
    )
    convert.add_argument("source", metavar="SOURCE", help="folder or Hub id of the checkpoint")
    convert.add_argument("dest", metavar="DEST", help="the folder to make")
    convert.add_argument("--kind", help="lisa, glamm or llava (default: found out)")
    convert.add_argument(
        "--clip",
        metavar="NAME",
        help="its CLIP: folder, Hub id, open_clip:ARCH/TAG or hf-hub:ORG/NAME (default: as configured)",
    )
    convert.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id (default: the checkpoint's own)")
    convert.add_argument("--conversation", choices=list(CONVERSATIONS), help="LISA's (default: by its name)")
    convert.add_argument("--seg-token-id", type=int, metavar="ID", help="id of [SEG], where no tokenizer tells")
    convert.add_argument(
        "--dtype", default="auto", choices=DTYPES, help="of the weights (default: as its config says)"
    )
    convert.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a file (default: 5GB)")
    convert.add_argument("--json", action="store_true", help="print the whole report as one JSON object")
    convert.set_defaults(run=convert_command, show=print_conversion)

    card = commands.add_parser(
        "card",
        help="write the model card of a folder",
        description="Writes README.md, and beside it handler.py and requirements.txt, which an endpoint runs.",
    )
    card.add_argument("folder", metavar="DIR", help="folder of a saved or converted model")
    card.add_argument("--target", choices=list(TARGETS), help="whose card (default: by the folder's name)")
    card.add_argument("--repo-id", metavar="REPO_ID", help="the repository that its code names (default: org/TARGET)")
    card.add_argument("--json", action="store_true", help="print one JSON object")
    card.set_defaults(run=card_command, show=print_files)

    push = commands.add_parser(
        "push",
        help="publish a folder on the Hub",
        description="Checks that the folder is complete, makes the repository and uploads; run again, it resumes.",
    )
    push.add_argument("folder", metavar="DIR", help="folder of a saved or converted model, with its card")
    push.add_argument("repo_id", metavar="REPO_ID", help="such as org/litelvlm-lisa-7b; made if it does not exist")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--dry-run", action="store_true", help="only list every file, its size and its SHA-256")
    push.add_argument("--json", action="store_true", help="print one JSON object")
    push.set_defaults(run=push_command, show=print_files)
    add_commands(commands)
    add_benchmark_command(commands)
    return parser


def segment_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm segment`; raises ValueError or OSError for what the user can mend."""
    if not options.text.strip():
        raise ValueError("TEXT is empty; say what to segment.")
    if options.show_tokens and options.output is None:
        raise ValueError("--show-tokens draws into the picture of --output, which is not given.")
    for path in (options.output, options.mask):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into.")
    milliseconds: dict[str, float] = {}
    device = torch.device(options.device)

    image = load_rgb(EXAMPLE_IMAGE if options.image == "example" else options.image)
    with stage("load model", milliseconds, device):
        model, processor = load(options.model, options.dtype, device)
    with stage("process inputs", milliseconds, device):
        inputs = processor(images=image, text=options.text).to(device)
    with stage("encode image", milliseconds, device), torch.inference_mode():
        images = {name: inputs.pop(name) for name in ("pixel_values", "sam_pixel_values")}
        state = model.encode_image(**images, pruning_method=options.method)
    choices = {"num_retained_tokens": options.num_retained_tokens, "pruning_method": options.method}
    with stage("answer and masks", milliseconds, device), torch.inference_mode():
        output = model.segment(**inputs, **choices, image_state=state, max_new_tokens=options.max_new_tokens)
    with stage("post-process", milliseconds, device):
        masks = processor.post_process_masks(output, inputs)[0].cpu()

    retained = model.config.num_patches if output.retained_indices is None else output.retained_indices.shape[1]
    report = {
        "text": options.text,
        "answer": processor.decode_answers(output)[0],
        "masks": [describe_mask(mask) for mask in masks],
        "num_visual_tokens": model.config.num_patches,
        "num_retained_tokens": retained,
        "milliseconds": {name: round(value, 1) for name, value in milliseconds.items()},
    }
    if options.output is not None:
        pictures = [overlay_masks(image, masks)]
        if options.show_tokens:
            kinds = patch_kinds(model, output, inputs, options.method or model.config.pruning_method)
            cropped = bool(processor.image_processor.do_center_crop)
            pictures.insert(0, overlay_tokens(image, *kinds, cropped=cropped))
        side_by_side(pictures).save(options.output)
    if options.mask is not None:
        Image.fromarray((masks.any(dim=0) * 255).to(torch.uint8).numpy()).save(options.mask)
    return report


def methods_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm methods`."""
    methods = [get_pruning_method(name) for name in list_pruning_methods()]
    return {
        "methods": [
            {
                "name": method.name,
                "where": f"{'before' if isinstance(method, TokenSelector) else 'inside'} the language model",
                "reads_text": not isinstance(method, TokenSelector) or method.needs_texts,
                "summary": inspect.cleandoc(method.function.__doc__ or "").partition("\n")[0],
                "source": method.source,
            }
            for method in methods
        ]
    }


def convert_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm convert`."""
    names = ("kind", "clip", "tokenizer", "conversation", "seg_token_id", "dtype", "max_shard_size")
    return convert(options.source, options.dest, **{name: getattr(options, name) for name in names})


def card_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm card`."""
    return {"files": [{"name": str(path)} for path in write_card(options.folder, options.target, options.repo_id)]}


def push_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm push`."""
    return push(options.folder, options.repo_id, private=options.private, dry_run=options.dry_run)


def load(name: str, dtype: str, device: torch.device) -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    """Model and processor; a ValueError names what cannot be loaded."""
    try:
        model = LiteLVLMForSegmentation.from_pretrained(name, dtype=dtype)
        processor = LiteLVLMProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"The model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return model.to(device), processor


def patch_kinds(
    model: LiteLVLMForSegmentation, output: Any, inputs: Any, method: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the N patches were retained for their similarity, and which for context; bool, shape `(N,)` each."""
    kept = torch.zeros(model.config.num_patches, dtype=torch.bool)
    if output.retained_indices is None:
        return kept, ~kept
    if method != "litelvlm":  # other methods do not tell the two apart; -1 is no patch
        retained = output.retained_indices[0].cpu()
        return kept, kept.index_fill(0, retained[retained >= 0], True)
    signals = PruningSignals(
        similarity=output.similarity,
        contribution=output.contribution,
        text_mask=inputs["guide_attention_mask"].bool().flatten(2).any(dim=-1),
    )
    aware = similarity_aware_patches(signals, output.retained_indices.shape[1], model.config)
    kept = torch.zeros_like(aware).scatter(1, output.retained_indices, True)
    return (kept & aware)[0].cpu(), (kept & ~aware)[0].cpu()


def describe_mask(mask: torch.Tensor) -> dict[str, Any]:
    """Area in pixels and bounding box as [left, top, right, bottom], of a mask `(height, width)`."""
    rows, columns = (mask.any(dim=dim).nonzero().flatten().tolist() for dim in (1, 0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else None
    return {"area": int(mask.sum()), "box": box}


@contextmanager
def stage(name: str, milliseconds: dict[str, float], device: torch.device) -> Iterator[None]:
    """Notes how long a block takes, the device's work included."""
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    milliseconds[name] = 1000 * (time.perf_counter() - started)


def print_report(report: dict[str, Any]) -> None:
    print(f"answer: {report['answer']}")
    for mask in report["masks"]:
        print(f"mask:   {mask['area']} pixels, box {mask['box']}")
    if not report["masks"]:
        print("mask:   none (the answer holds no [SEG])")
    print(f"tokens: {report['num_retained_tokens']} of {report['num_visual_tokens']} visual tokens kept")
    print("time:   " + ", ".join(f"{name} {value} ms" for name, value in report["milliseconds"].items()))


def print_methods(report: dict[str, Any]) -> None:
    for method in report["methods"]:
        reads = "reads the text" if method["reads_text"] else "sees the picture alone"
        print(f"{method['name']}: {method['where']}, {reads}\n  {method['summary']}\n  {method['source']}")


def print_conversion(report: dict[str, Any]) -> None:
    print(
        f"kind:         {report['kind']}, {report['num_parameters'] / 1e6:,.1f} million parameters, {report['dtype']}"
    )
    print(f"vision tower: {report['vision_tower']}")
    for reason, number in Counter(entry["reason"] for entry in report["dropped"]).items():
        print(f"left out:     {number} tensors: {reason}")
    if report["processor"]:
        print(f"prompts:      {report['conversation'] or 'the checkpoint has a chat template of its own'}")
    else:
        print("no processor: the checkpoint has no tokenizer and none was named; the folder holds the model only")
    print(f"report:       {REPORT} in the folder, with a hash of every tensor")


def print_files(report: dict[str, Any]) -> None:
    for file in report["files"]:
        print("  ".join(str(file[name]) for name in ("sha256", "size", "name") if name in file))
    if "repo_id" in report:
        size = sum(file["size"] for file in report["files"])
        went = "would go" if report["dry_run"] else "went"
        print(f"{len(report['files'])} files, {size / 1e6:,.1f} MB, {went} to {report['repo_id']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr that says what is wrong."""
    options = build_parser().parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        report = options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        print(f"litelvlm: {reason[0] if reason else type(error).__name__}", file=sys.stderr)
        return 2
    print(json.dumps(report)) if options.json else options.show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
