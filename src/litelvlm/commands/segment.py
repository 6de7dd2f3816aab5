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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..writing import check_separate, replacing
from .flags import add_command, add_model

# A mask's 0 and 255 outlive only what keeps every value
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
OUTPUT_ENDINGS = (*MASK_ENDINGS, ".jpg", ".jpeg", ".webp")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "segment",
        help="segment what a text refers to in an image",
        description="Prints the answer, the time per stage and the tokens kept, and writes images if asked to.",
    )
    parser.add_argument("image", metavar="IMAGE", help="path or URL of an image; 'example' is the shipped one")
    parser.add_argument("text", metavar="TEXT", help='what to segment, such as "the red circle"')
    add_model(parser)
    parser.add_argument("--method", help="pruning method, as `litelvlm methods` lists them (default: the model's)")
    parser.add_argument("--num-retained-tokens", type=int, metavar="K", help="visual tokens to keep")
    parser.add_argument("--selection-rule", metavar="RULE", help="how the method litelvlm selects: paper or released")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--answer", metavar="TEXT", help='do not generate: take this answer, such as "It is [SEG]."')
    answer.add_argument("--max-new-tokens", type=int, default=32, help="length of the answer (default: 32)")
    parser.add_argument("--output", type=Path, metavar="PNG", help="write the image with the mask over it")
    parser.add_argument("--mask", type=Path, metavar="PNG", help="write the mask: 255 inside, 0 outside")
    parser.add_argument("--show-tokens", action="store_true", help="show the retained patches too, beside the mask")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError or OSError for what the user can mend."""
    if not options.text.strip():
        raise ValueError("TEXT is empty; say what to segment.")
    if options.show_tokens and options.output is None:
        raise ValueError("--show-tokens draws into the image of --output, which is not given.")
    for flag, path, endings in (("--output", options.output, OUTPUT_ENDINGS), ("--mask", options.mask, MASK_ENDINGS)):
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
    from ..tiny import EXAMPLE_IMAGE
    from ..visualization import overlay_masks, overlay_tokens, retained_patches, side_by_side
    from .loading import load_model, pick_device

    milliseconds: dict[str, float] = {}
    image = load_rgb(EXAMPLE_IMAGE if options.image == "example" else options.image)
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
        images = {
            name: inputs.pop(name) for name in ("pixel_values", "sam_pixel_values", "image_sizes") if name in inputs
        }
        state = model.encode_image(**images, pruning_method=options.method)
    choices = {"num_retained_tokens": options.num_retained_tokens, "pruning_method": options.method}
    if options.answer is None:
        choices["max_new_tokens"] = options.max_new_tokens
    else:
        choices |= {"answer": options.answer, "processor": processor}
    with stage("answer and masks", milliseconds), torch.inference_mode():
        output = model.segment(**inputs, **choices, image_state=state)
    with stage("post-process", milliseconds):
        (found,) = processor.post_process_instance_segmentation(output, inputs)

    retained = model.config.num_patches if output.num_retained_tokens is None else int(output.num_retained_tokens[0])
    found_masks = [entry["mask"].cpu() for entry in found]
    masks = torch.stack(found_masks) if found else torch.zeros((0, image.height, image.width), dtype=torch.bool)
    report = {
        "text": options.text,
        "answer": processor.decode_answers(output, inputs)[0],
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
    if options.mask is not None:
        with replacing(options.mask) as temporary:
            Image.fromarray((masks.any(dim=0) * 255).to(torch.uint8).numpy()).save(temporary)
    return report


def describe(entry: dict[str, Any]) -> dict[str, Any]:
    """Of an instance: area in pixels, bounding box, score and SAM's predicted IoU."""
    numbers = {name: round(entry[name], 4) for name in ("score", "predicted_iou")}
    return {"area": int(entry["mask"].sum()), "box": entry["box"]} | numbers


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
    print(f"answer: {report['answer']}")
    for mask in report["masks"]:
        print(
            f"mask:   {mask['area']} pixels, box {mask['box']}, score {mask['score']:.2f}, "
            f"predicted IoU {mask['predicted_iou']:.2f}"
        )
    if not report["masks"]:
        print("mask:   none (the answer holds no [SEG])")
    print(f"tokens: {report['num_retained_tokens']} of {report['num_visual_tokens']} visual tokens kept")
    print("time:   " + ", ".join(f"{name} {value} ms" for name, value in report["milliseconds"].items()))


__all__ = ["add_parser", "run", "show"]
