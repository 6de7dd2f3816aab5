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
"""`litelvlm segment`: from an image and a text to the answer and its masks."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..writing import check_separate, replacing, write_text
from .flags import add_command, add_model, add_question

# Of an image with masks over it, and of masks in each format; 0 and 255 outlive only what keeps every value
OUTPUT_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
MASK_ENDINGS = {"png": OUTPUT_ENDINGS[:4], "coco": (".json",), "yolo": (".txt",), "labelme": (".json",)}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "segment",
        help="segment what a text refers to in an image",
        description="Prints the answer, the time per stage and the tokens kept, and writes images if asked to.",
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="path or URL of an image; - is standard input, 'example' the shipped one"
    )
    parser.add_argument(
        "text", metavar="TEXT", nargs="+", help='what to segment, such as "the red circle"; of several each is asked'
    )
    add_model(parser)
    add_question(parser)
    parser.add_argument("--selection-rule", metavar="RULE", help="how the method litelvlm selects: paper or released")
    parser.add_argument("--output", type=Path, metavar="PNG", help="write the image with the mask over it")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="write the masks")
    parser.add_argument(
        "--format",
        help="of --mask: png (255 inside any mask, 0 outside), coco (JSON with run lengths), yolo (lines of a class, "
        "the number of its text, and a polygon) or labelme (default: png)",
    )
    parser.add_argument("--show-tokens", action="store_true", help="show the retained patches too, beside the mask")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError or OSError for what the user can mend."""
    if not all(text.strip() for text in options.text):
        raise ValueError("TEXT is empty; say what to segment.")
    options.text = list(dict.fromkeys(options.text))
    check_format(options)
    if options.show_tokens and options.output is None:
        raise ValueError("--show-tokens draws into the image of --output, which is not given.")
    for flag, path, endings in (
        ("--output", options.output, OUTPUT_ENDINGS),
        ("--mask", options.mask, MASK_ENDINGS[options.format or "png"]),
    ):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into.")
        if path.suffix.lower() not in endings:
            raise ValueError(f"{flag} is {str(path)!r}; allowed are names that end in {', '.join(endings)}.")
    check_separate({"IMAGE": options.image, "--output": options.output, "--mask": options.mask})

    import torch
    from PIL import Image

    from ..modeling.images_litelvlm import load_rgb
    from ..modeling.outputs_litelvlm import IMAGE_INPUTS
    from ..modeling.pruning_litelvlm import retained_patches
    from ..tiny import EXAMPLE_IMAGE
    from ..visualization import overlay_masks, overlay_tokens, side_by_side
    from .loading import load_model, pick_device

    milliseconds: dict[str, float] = {}
    source = EXAMPLE_IMAGE if options.image == "example" else options.image
    image = load_rgb(read_standard_input() if source == "-" else source)
    with stage("load model", milliseconds):
        model, processor = load_model(options, pick_device(options.device))
    method = options.method or model.config.pruning_method
    if options.selection_rule is not None:
        if method != "litelvlm":
            raise ValueError(f"--selection-rule is one of the method litelvlm, but the method is {method!r}.")
        model.config.selection_rule = options.selection_rule
    with stage("process inputs", milliseconds):
        inputs = processor(images=image, text=options.text).to(model.device)
    with stage("encode image", milliseconds), torch.inference_mode():
        images = {name: inputs.pop(name) for name in IMAGE_INPUTS if name in inputs}
        state = model.encode_image(**images, pruning_method=options.method)
    choices = {"num_retained_tokens": options.num_retained_tokens, "pruning_method": options.method}
    if options.answer is None:
        choices["max_new_tokens"] = options.max_new_tokens
    else:
        choices |= {"answer": options.answer, "processor": processor}
    with stage("answer and masks", milliseconds), torch.inference_mode():
        output = model.segment(**inputs, **choices, image_state=state)
    with stage("post-process", milliseconds):
        results = processor.post_process_instance_segmentation(output, inputs)
        found = [entry for entries in results for entry in entries]

    retained = model.config.num_patches if output.num_retained_tokens is None else int(output.num_retained_tokens[0])
    found_masks = [entry["mask"].cpu() for entry in found]
    masks = torch.stack(found_masks) if found else torch.zeros((0, image.height, image.width), dtype=torch.bool)
    answers = processor.decode_answers(output, inputs)
    reasons = processor.explain_no_masks(output, inputs)
    report = {
        "text": options.text if len(answers) > 1 else options.text[0],
        "answer": answers if len(answers) > 1 else answers[0],
        "reason": reasons if len(answers) > 1 else reasons[0],
        "masks": [describe(entry) for entry in found],
        "num_visual_tokens": model.config.num_patches,
        "num_retained_tokens": retained,
        "milliseconds": {name: round(value, 1) for name, value in milliseconds.items()},
    }
    if options.output is not None:
        drawn = [overlay_masks(image, masks)]
        if options.show_tokens:
            patches = retained_patches(model.config, method, inputs, output)
            cropped = bool(processor.image_processor.do_center_crop)
            drawn.insert(0, overlay_tokens(image, *patches, cropped=cropped))
        with replacing(options.output) as temporary:
            side_by_side(drawn).save(temporary)
    if options.mask is not None and options.format in (None, "png"):
        with replacing(options.mask) as temporary:
            Image.fromarray((masks.any(dim=0) * 255).to(torch.uint8).numpy()).save(temporary)
    elif options.mask is not None:
        write_text(options.mask, format_masks(options, str(source), results, image.size[::-1]))
    return report


def check_format(options: argparse.Namespace) -> None:
    """Raises a ValueError for an unknown format, and for flags that say nothing in this call."""
    from ..configuration.configuration_litelvlm import check_choice

    if options.format is not None:
        check_choice("--format", options.format, MASK_ENDINGS)
        if options.mask is None:
            raise ValueError("--format is that of the file of --mask, which is not given.")
    if options.show_tokens and len(options.text) > 1:
        raise ValueError(f"--show-tokens shows the tokens kept for one text, but there are {len(options.text)}.")


def read_standard_input() -> Any:
    """The image that standard input holds; a ValueError says why it cannot be read."""
    from ..modeling.images_litelvlm import open_image

    data = sys.stdin.buffer.read()
    try:
        return open_image(data)
    except ValueError as error:
        raise ValueError(f"Standard input ({len(data)} bytes) cannot be read as an image.") from error


def format_masks(options: argparse.Namespace, source: str, results: list[Any], size: tuple[int, int]) -> str:
    """The text of a file with the masks of each text, in the format that the flags name."""
    from ..outputs import to_coco, to_labelme, to_yolo

    found = [entry for entries in results for entry in entries]
    if options.format == "yolo":
        return to_yolo(found, size, options.text)
    here = os.path.exists(source)
    if options.format == "labelme":
        # LabelMe looks for the image from the folder of the file
        return json.dumps(to_labelme(found, size, os.path.relpath(source, options.mask.parent) if here else source))
    name = os.path.basename(source) if here else source
    return json.dumps(to_coco(results, [size] * len(results), [name] * len(results)))


def describe(entry: dict[str, Any]) -> dict[str, Any]:
    """Of an instance: its text, area in pixels, bounding box, score and SAM's predicted IoU."""
    numbers = {name: round(entry[name], 4) for name in ("score", "predicted_iou")}
    return {"text": entry["label"], "area": int(entry["mask"].sum()), "box": entry["box"]} | numbers


@contextmanager
def stage(name: str, milliseconds: dict[str, float]) -> Iterator[None]:
    """Notes how long a block takes, the device's work included."""
    import torch

    started = time.perf_counter()
    yield
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    milliseconds[name] = 1000 * (time.perf_counter() - started)


def show(report: dict[str, Any]) -> None:
    several = isinstance(report["text"], list)
    columns = (report[name] if several else [report[name]] for name in ("text", "answer", "reason"))
    for text, answer, reason in zip(*columns, strict=True):
        if several:
            print(f"text:   {text}")
        print(f"answer: {answer}")
        found = [mask for mask in report["masks"] if mask["text"] == text]
        for mask in found:
            print(
                f"mask:   {mask['area']} pixels, box {mask['box']}, score {mask['score']:.2f}, "
                f"predicted IoU {mask['predicted_iou']:.2f}"
            )
        if reason is not None:
            print(f"mask:   none ({reason})")
    print(f"tokens: {report['num_retained_tokens']} of {report['num_visual_tokens']} visual tokens kept")
    print("time:   " + ", ".join(f"{name} {value} ms" for name, value in report["milliseconds"].items()))


__all__ = ["add_parser", "run", "show"]
