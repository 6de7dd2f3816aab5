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
Guides hostile annotations by the branches that they reach in their readers: COCO's and RefCOCO's JSON, RefCOCO's
pickles, LabelMe's shapes, run lengths, polygons, rows, and the tables of `litelvlm annotate`. Each input ends in a
right result, or in one typed error that says something. Needs atheris (`pip install atheris`), for Linux and macOS.

    python scripts/fuzz_annotations.py --seconds 600 --seed 1
    python scripts/fuzz_annotations.py finding-5d3f...    # runs what was found again

An input is the name of a reader, a new line, and the text that it reads. Stops at the first finding, with its
traceback and the file that holds it; exit code 0 if there is none.
"""

import argparse
import hashlib
import json
import os
import pickle
import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["litelvlm.data", "litelvlm.annotation"]):
    from litelvlm.annotation.sources import open_source
    from litelvlm.data.masks import decode_segmentation, encode_mask
    from litelvlm.data.reasonseg import load_reasonseg
    from litelvlm.data.refcoco import load_refcoco
    from litelvlm.data.tables import load_tables
from tests.properties import check_entries, check_mask, or_none

HEIGHT, WIDTH = 8, 10  # of every image

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-annotations-"))
SQUARE = {"id": 1, "image_id": 1, "text": "the dog", "segmentation": [[3, 2, 7, 2, 7, 5, 3, 5]]}
IMAGE = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
REF = {"ref_id": 1, "image_id": 1, "ann_id": [1], "split": "val", "sentences": [{"sent_id": 1, "sent": "it"}]}
SHAPE = {"shape_type": "rectangle", "label": "target", "points": [[1, 1], [6, 4]]}
NUMBERS = [-1, 0.5, 2**63, 10**400, 1e12, float("nan"), float("inf")]
HOSTILE = [None, True, False, *NUMBERS, "", "\0", "\ud800", [], {}]


def write(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- the readers -----------------------------------------------------------------------------------------------------


def read_coco(content: bytes) -> None:
    path = write("coco/val.json", content)
    check_entries(or_none(load_tables, path, "val") or [], (WIDTH, HEIGHT))


def read_refcoco(content: bytes) -> None:
    """A line of refs, and one of instances."""
    refs, _, instances = content.partition(b"\n")
    write("grefcoco/grefs(unc).json", refs)
    write("grefcoco/instances.json", instances)
    check_entries(or_none(load_refcoco, FOLDER, "grefcoco", "unc", "val") or [], (WIDTH, HEIGHT))


def read_pickle(content: bytes) -> None:
    write("refcoco/refs(unc).p", content)
    check_entries(or_none(load_refcoco, FOLDER, "refcoco", "unc", "val") or [], (WIDTH, HEIGHT))


def read_labelme(content: bytes) -> None:
    write("ReasonSeg/val/a.json", content)
    check_entries(or_none(load_reasonseg, FOLDER, "val") or [], (WIDTH, HEIGHT))


def read_segmentation(content: bytes) -> None:
    try:
        segmentation = json.loads(content)
    except (ValueError, RecursionError):
        return
    check_mask(segmentation, HEIGHT, WIDTH)


def read_runs(content: bytes) -> None:
    check_mask({"size": [HEIGHT, WIDTH], "counts": content}, HEIGHT, WIDTH)


def read_source(content: bytes, ending: str) -> None:
    path = write(f"source.{ending}", content)
    if (source := or_none(open_source, str(path))) is not None:
        or_none(list, source.requests)


READERS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
"""Each reader with sound texts, from which the fuzzer starts."""


def texts(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def prepare() -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for name in ("coco/a.png", "train2014/a.png", "ReasonSeg/val/a.jpg"):
        image.save(write(name, b""))
    instances = {"images": [IMAGE], "annotations": [SQUARE]}
    write("refcoco/instances.json", json.dumps(instances).encode())
    runs = encode_mask(decode_segmentation(SQUARE["segmentation"], HEIGHT, WIDTH))
    rows = [[1] * WIDTH] * HEIGHT
    annotations = [SQUARE, SQUARE | {"id": 2, "segmentation": runs}, SQUARE | {"id": 3, "segmentation": []}]
    shapes = [SHAPE | {"shape_type": kind} for kind in ("rectangle", "circle", "line")]
    shapes += [SHAPE | {"shape_type": "polygon", "points": [[1, 1], [5, 1], [3, 5]]}]
    labelled = {"text": ["it"], "is_sentence": True, "shapes": shapes}
    READERS.update(
        coco=(read_coco, texts({"images": [IMAGE], "annotations": annotations})),
        refcoco=(read_refcoco, [b"\n".join(texts([REF, REF | {"no_target": True}], instances))]),
        pickle=(read_pickle, [pickle.dumps([REF], protocol=2)]),
        labelme=(read_labelme, texts(labelled, labelled | {"text": "it", "is_sentence": False})),
        segmentation=(read_segmentation, texts(SQUARE["segmentation"], rows, runs, runs | {"counts": [20, 5, 55]})),
        runs=(read_runs, [runs["counts"].encode()]),
        jsonl=(lambda text: read_source(text, "jsonl"), [b'{"image": "a.png", "text": ["it", null]}\n']),
        csv=(lambda text: read_source(text, "csv"), [b"image,text\na.png,it\n"]),
        json=(lambda text: read_source(text, "json"), texts({"images": [IMAGE], "annotations": [SQUARE]})),
    )


# --- the fuzzer ------------------------------------------------------------------------------------------------------


def check(data: bytes) -> None:
    name, _, content = data.partition(b"\n")
    if (reader := name.decode("latin1")) not in READERS:
        return
    try:
        READERS[reader][0](content)
    except BaseException:
        # Not left to libFuzzer: its alarm may end the process before the input is written
        traceback.print_exc()
        found = Path(f"finding-{hashlib.sha256(data).hexdigest()[:12]}")
        found.write_bytes(data)
        print(f"FOUND in {reader}: {data[:200]!r}, written to {found}", flush=True)
        os._exit(1)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another value, or one less, somewhere in the JSON of an input; or other bytes, as libFuzzer has it."""
    choose = random.Random(seed)
    name, _, content = data.partition(b"\n")
    lines = content.split(b"\n")
    line = choose.randrange(len(lines))
    try:
        value = json.loads(lines[line])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, (list, dict)) or choose.random() < 0.3:
        return atheris.Mutate(data, max_size)
    inner = [value]
    for found in inner:
        inner += [
            one for one in (found.values() if isinstance(found, dict) else found) if isinstance(one, (list, dict))
        ]
    place = choose.choice(inner)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if keys:
        key, action = choose.choice(keys), choose.random()
        if action < 0.15:
            del place[key]
        elif action < 0.3 and isinstance(place, list):
            place.append(place[key])
        else:
            # Numbers near those that are there find edges, other values find types
            near = [place[key] + choose.choice([-1, 1, 7])] if type(place[key]) in (int, float) else []
            place[key] = choose.choice([*HOSTILE, *near * 8, choose.choice(inner)])
    try:
        lines[line] = json.dumps(value).encode()
    except (ValueError, RecursionError):  # it holds itself
        return atheris.Mutate(data, max_size)
    changed = name + b"\n" + b"\n".join(lines)
    return changed if len(changed) <= max_size else atheris.Mutate(data, max_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", help="files to run again, or a folder that keeps what is found")
    parser.add_argument("--seconds", type=int, default=600, help="limit (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="from 1 on (default: 1)")
    options = parser.parse_args()
    prepare()
    folders = options.inputs
    if not folders:
        for name, (_, sound) in READERS.items():
            for number, content in enumerate(sound):
                write(f"corpus/{name}-{number}", name.encode() + b"\n" + content)
        folders = [str(FOLDER / "corpus")]
    limits = [f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"]
    atheris.Setup([sys.argv[0], f"-seed={options.seed}", *limits, *folders], check, custom_mutator=mutate)
    atheris.Fuzz()  # which ends the process


if __name__ == "__main__":
    main()
