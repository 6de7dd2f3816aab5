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
"""`litelvlm annotate`: masks for a folder, a table or a data set."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..extras import needing, required
from .flags import add_command, add_model, add_question, prepare_ray


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "annotate",
        help="segment what texts refer to in many images",
        description="Writes a row for each mask, and one with nulls for a text without any. Started again after it "
        "was stopped, it goes on. What cannot be read is named in OUTPUT.errors.jsonl, and does not stop it.",
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a folder of images, a .txt with one on each line, a .csv, .jsonl or .parquet with the columns image and "
        "text, COCO's .json, refcoco and the like, or a data set of the Hub, which is streamed",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a .parquet, or a .json in COCO's format")
    parser.add_argument(
        "--text", nargs="+", metavar="TEXT", help="ask these of every image, instead of what INPUT says"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="the folder from which INPUT names its images (default: its own), or that holds the RefCOCO family",
    )
    parser.add_argument("--split", nargs="+", help="of a data set (default: train, or those that papers report)")
    add_model(parser)
    add_question(parser)
    parser.add_argument("--batch-size", type=int, default=16, help="images, and texts, at a time (default: 16)")
    parser.add_argument(
        "--engine", default="local", help="local, or ray: actors on this machine, or on a cluster (default: local)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="of the engine ray: its actors (default: 1)")
    parser.add_argument(
        "--num-gpus-per-worker", type=float, metavar="N", help="of the engine ray (default: 1 where there is one)"
    )
    parser.add_argument("--force", action="store_true", help="begin anew, and replace OUTPUT")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any] | None:
    """Raises ValueError or OSError for what the user can mend."""
    if not all(text.strip() for text in options.text or []):
        raise ValueError("--text is empty; say what to segment.")

    of_ray = {"--workers": options.workers, "--num-gpus-per-worker": options.num_gpus_per_worker}
    if options.engine not in ("local", "ray"):
        raise ValueError(f"--engine is {options.engine!r}; allowed are local and ray.")
    if options.engine == "local" and any(value is not None for value in of_ray.values()):
        raise ValueError(f"{' and '.join(of_ray)} are of --engine ray; for several processes use accelerate launch.")
    if options.engine == "ray" and options.dtype == "auto-fast":
        raise ValueError("--dtype auto-fast may be another one on each machine of --engine ray; name a dtype.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; allowed are numbers of at least 1.")

    from accelerate import PartialState

    from ..annotation.annotate import annotate
    from ..annotation.parts import Parts, check_output
    from ..annotation.sources import open_source
    from ..evaluation.fingerprints import fingerprint_of_model, fingerprint_of_processor
    from .loading import load_model, pick_device

    output = options.output.absolute()
    check_output(output, options.force)
    required("pycocotools.mask", "formats")
    if output.suffix == ".parquet":
        required("pyarrow")
    # Asked twice, a text would only double its rows
    texts = None if options.text is None else list(dict.fromkeys(options.text))
    source = open_source(options.input, texts, options.data_root, options.split)
    state = PartialState()
    device = pick_device(options.device)
    if options.engine == "ray":
        if state.num_processes > 1:
            raise ValueError("--engine ray starts processes of its own; leave accelerate launch out.")
        has_gpu, device = device.type == "cuda", pick_device("cpu")  # what runs here only says which model it is
    elif options.device is None and state.num_processes > 1:
        device = state.device  # a GPU for each process
    model, processor = load_model(options, device)
    model.config.resolve_pruning(options.num_retained_tokens, options.method)
    fingerprint = fingerprint_of_model(model)
    settings = {"model": fingerprint, "processor": fingerprint_of_processor(processor)}
    settings |= {
        name: getattr(options, name) for name in ("answer", "max_new_tokens", "method", "num_retained_tokens")
    }
    parts = Parts(output, settings, options.force and state.is_main_process)
    if options.engine == "local":
        return annotate(make_annotator(options, model, processor, fingerprint), source, parts, options.batch_size)
    num_gpus = float(has_gpu) if options.num_gpus_per_worker is None else options.num_gpus_per_worker
    del model, processor
    return on_ray(options, fingerprint, source, parts, num_gpus)


def make_annotator(options: argparse.Namespace, model: Any, processor: Any, fingerprint: str) -> Any:
    from ..annotation.annotator import Annotator

    return Annotator(
        model,
        processor,
        answer=options.answer,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        revision=getattr(model.config, "_commit_hash", None) or fingerprint,
        num_retained_tokens=options.num_retained_tokens,
        pruning_method=options.method,
    )


def load_annotator(options: argparse.Namespace, fingerprint: str) -> Any:
    """In an actor, whose device is the one that Ray gives it."""
    from .loading import load_model, pick_device

    return make_annotator(options, *load_model(options, pick_device(options.device)), fingerprint)


def on_ray(options: argparse.Namespace, fingerprint: str, source: Any, parts: Any, num_gpus: float) -> dict[str, Any]:
    prepare_ray()
    with needing("serve"):
        import ray
        import ray.data
    from ..annotation.ray_engine import annotate_on_ray

    # On the cluster that RAY_ADDRESS names, or on one of its own
    ray.init(log_to_driver=options.debug, logging_level="error")
    try:
        load = partial(load_annotator, argparse.Namespace(**vars(options) | {"run": None, "show": None}), fingerprint)
        return annotate_on_ray(load, source, parts, options.batch_size, options.workers or 1, num_gpus)
    finally:
        ray.shutdown()


def show(report: dict[str, Any]) -> None:
    print(f"{report['rows']} rows, {report['masks']} of them masks, in {report['output']}")
    if report["errors"]:
        print(f"{report['errors']} errors, named in {Path(report['output']).name}.errors.jsonl")
    print(f"{report['images']} images in {report['seconds']:.1f} s, {report['images_per_second']:.2f} per second")


__all__ = ["add_parser", "run", "show"]
