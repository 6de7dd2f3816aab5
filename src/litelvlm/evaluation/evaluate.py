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
Evaluation of many images by one process or several, which goes on where it was stopped.

What is counted of an image is one line of JSON, and every figure is made of these lines alone. A start reads the lines
of all earlier starts, of however many processes, and measures the images that they lack or that have changed since. So
nothing is counted twice, no batch is padded, and the number of processes changes no figure.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from ..data.samples import ReferringImage
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..writing import write_text
from .fingerprints import (
    fingerprint_of_content,
    fingerprint_of_images,
    fingerprint_of_model,
    fingerprint_of_processor,
)
from .measure import measure, read_masks
from .metrics import PixelCounts, Tally
from .runs import Run
from .sample_files import open_samples, read_lines

RESULTS = "results.json"


def evaluate(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    data: Mapping[tuple[str, str], Sequence[ReferringImage]],
    runs: Sequence[Run],
    output: Path,
    *,
    seed: int = 0,
    skip_broken: bool = False,
) -> dict[str, Any] | None:
    """
    Measures every run on every image, and writes `samples-*.jsonl` and `results.json` into a folder.

    Args:
        model, processor: on the device of this process.
        data: images by dataset and split.
        runs: what to measure; see [`Run`].
        output: the folder; one that holds a part of the same evaluation is gone on with.
        seed (`int`): of the bootstrap.
        skip_broken (`bool`): whether to leave out, and count, what cannot be read.

    Returns:
        The results, `None` on all processes but the main one: `settings`, `results` (a row for each dataset, split
        and run) and `broken` (what was skipped).

    Raises:
        ValueError: the folder holds another evaluation, or something cannot be read and is not to be skipped.
    """
    state = PartialState()
    settings = {
        "model": fingerprint_of_model(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "processor": fingerprint_of_processor(processor),
        "data": {f"{name}/{split}": fingerprint_of_images(entries) for (name, split), entries in data.items()},
        "runs": [run.name for run in runs],
        "seed": seed,
    }
    output.mkdir(parents=True, exist_ok=True)
    # Machines without a common disk have different files, so the processes exchange what they have read
    earlier = gather_object(list(read_lines(output, settings)))
    state.wait_for_everyone()  # before any process repairs its file

    images = {f"{name}/{split}/{e.id}": e for (name, split), entries in data.items() for e in entries}
    # A line counts if image and masks are still what they were: what was broken may be mended
    measured = sorted({line["key"] for line in earlier} & images.keys())[state.process_index :: state.num_processes]
    contents = [
        (key, fingerprint_of_content(*read_masks(images[key], skip_broken)))
        for key in tqdm(measured, desc="measured already", disable=not (measured and state.is_main_process))
    ]
    unchanged = set(gather_object(contents))
    known = {line["key"]: line for line in earlier if (line["key"], line["content"]) in unchanged}
    pending = [key for key in images if key not in known]
    mine = pending[state.process_index :: state.num_processes]
    new = []
    with open_samples(output / f"samples-{state.process_index}.jsonl", settings) as file:
        for key in tqdm(mine, desc="images", disable=not state.is_main_process):
            new.append({"key": key} | measure(model, processor, images[key], runs, skip_broken))
            file.write(json.dumps(new[-1]) + "\n")
            file.flush()
    known |= {line["key"]: line for line in gather_object(new)}
    if not state.is_main_process:
        return None

    results: list[dict[str, Any]] = []
    broken: list[str] = []
    for (name, split), entries in data.items():
        lines = [known[f"{name}/{split}/{entry.id}"] for entry in entries]
        broken += [message for line in lines for message in line["broken"]]
        results += [
            {"data": name, "split": split} | row for row in figures(lines, runs, model.config.num_patches, seed)
        ]
    report = {"settings": settings, "results": results, "broken": broken}
    write_text(output / RESULTS, json.dumps(report, indent=2) + "\n")
    return report


def figures(lines: Sequence[dict[str, Any]], runs: Sequence[Run], patches: int, seed: int) -> list[dict[str, Any]]:
    """
    A row for each run on the images of a split; `retained` is the number of tokens that was asked for, `kept` the mean
    of what was kept, and retention is relative to all tokens in the same protocol.
    """
    tallies, kept = {}, {}
    for run in runs:
        pairs = [(line["key"], counts) for line in lines for counts in line["counts"][run.name]]
        tallies[run] = Tally([image for image, _ in pairs], [PixelCounts(*counts[1:5]) for _, counts in pairs], seed)
        kept[run] = sum(counts[5] for _, counts in pairs) / len(pairs) if pairs else None
    everything = {run.protocol: tally for run, tally in tallies.items() if run.method == "none"}
    rows = []
    for run, tally in tallies.items():
        row: dict[str, Any] = {"protocol": run.protocol, "variant": run.variant, "retained": run.retained}
        row |= {"kept": kept[run], "patches": patches, "images": tally.num_images}
        row |= {name: tally[name] for name in ("expressions", "no_targets", "intersection", "union")}
        row |= tally.figures()
        if run.protocol in everything:
            row |= tally.retention(everything[run.protocol])
        rows.append(row)
    return rows


__all__ = ["RESULTS", "evaluate", "figures"]
