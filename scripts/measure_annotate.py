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
"""
`litelvlm annotate` with the embedded model: its rate against a loop over `segment`, and its memory over many images.

    python scripts/measure_annotate.py rate --images 64 --threads 2
    python scripts/measure_annotate.py memory --images 10000 --output masks.parquet

`rate` takes the two in turns, so that a busy machine slows both alike, and prints the median of the rounds. `memory`
annotates RefShapes, drawn as they are needed, and prints the peak of resident memory after each tenth: it is flat if
the tenths are alike.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

import litelvlm
from litelvlm.annotation import Annotator, Request
from litelvlm.annotation.annotate import annotate
from litelvlm.annotation.parts import Parts
from litelvlm.annotation.sources import Source
from litelvlm.data.refshapes import RefShapes

SIZES = ((256, 256), (320, 240), (200, 300))
"""Width and height of the images, in turns: a batch holds several."""


def requests(scenes: RefShapes) -> Iterator[Request]:
    for i in range(len(scenes)):
        scene = scenes[i]
        image = Image.fromarray(scene.image).resize(SIZES[i % len(SIZES)])
        yield Request(image, [scene.expressions[0].text], f"{i}.png")


def loop(model: Any, processor: Any, asked: list[Request], options: dict[str, Any]) -> int:
    """One image after the other, as one writes it by hand; gives the number of masks."""
    masks = 0
    for request in asked:
        inputs = processor(request.image, request.texts[0])
        output = model.segment(**inputs, **options)
        masks += len(processor.post_process_instance_segmentation(output, inputs)[0])
    return masks


def measure_rate(options: argparse.Namespace) -> dict[str, Any]:
    model, processor = litelvlm.load_tiny()
    annotator = Annotator(model, processor, answer=options.answer, batch_size=options.batch_size)
    given: dict[str, Any] = {"max_new_tokens": 32, "do_sample": False}
    if options.answer is not None:
        given = {"answer": options.answer, "processor": processor}
    asked = list(requests(RefShapes("val", options.images, 256)))
    loop(model, processor, asked[:2], given)
    seconds: dict[str, list[float]] = {"loop": [], "annotate": []}
    for number in range(options.rounds):
        started = time.perf_counter()
        masks = loop(model, processor, asked, given)
        seconds["loop"].append(time.perf_counter() - started)
        parts = Parts(options.output.with_stem(f"{options.output.stem}-{number}"), {}, force=True)
        started = time.perf_counter()
        report = annotate(annotator, Source(asked, len(asked)), parts, options.batch_size)
        seconds["annotate"].append(time.perf_counter() - started)
        parts.output.unlink()
        if report is None or report["masks"] != masks:
            raise RuntimeError(f"The loop made {masks} masks, annotate says {report}.")
    rates = {name: len(asked) / median(values) for name, values in seconds.items()}
    return {"images_per_second": rates, "ratio": rates["annotate"] / rates["loop"], "seconds": seconds}


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    model, processor = litelvlm.load_tiny()
    annotator = Annotator(model, processor, answer=options.answer, batch_size=options.batch_size)
    peaks: list[float] = []

    def watched() -> Iterator[Request]:
        for i, request in enumerate(requests(RefShapes("val", options.images, 256))):
            if i and i % max(1, options.images // 10) == 0:
                peaks.append(peak_megabytes())
            yield request

    parts = Parts(options.output, {"images": options.images, "answer": options.answer})
    report = annotate(annotator, Source(watched(), options.images), parts, options.batch_size)
    return {"report": report, "peak_megabytes": [*peaks, peak_megabytes()]}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "memory"))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of rate (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--answer", help='such as "It is [SEG].": nothing is decoded')
    parser.add_argument("--output", type=Path, default=Path("measured.parquet"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured = {"rate": measure_rate, "memory": measure_memory}[options.what](options)
    print(json.dumps({"images": options.images, "threads": options.threads, "answer": options.answer} | measured))


if __name__ == "__main__":
    main()
