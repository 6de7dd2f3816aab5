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
Asks a server of the embedded model on loopback, with batching and without, by many clients at once of whom some send
what is malformed, too large or slow, and looks at every answer.

    python scripts/load_test.py --requests 1000 --clients 32 --output benchmarks/results/serve.md
"""

import argparse
import base64
import io
import json
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.data.masks import decode_segmentation

TEXTS = ("the red circle", "the green star", "the blue square", "the yellow triangle")
SIZES = (512, 448, 384, 320)
BAD_SHARE = 0.2
TOLERANCE = 1e-3
"""Share of a mask's pixels that padding within a batch may move."""


@dataclass(frozen=True)
class Sent:
    """What became of a request."""

    kind: str
    status: int
    seconds: float
    is_right: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--answer", help="taken as given, in place of generating up to 16 tokens")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    images = make_images()
    print("single calls ...", file=sys.stderr)
    expected = single_calls(images, options.answer)
    lines = [run(size, images, expected, options) for size in options.batch_sizes]
    text = describe(options, lines)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def make_images() -> list[bytes]:
    example, files = Image.open(EXAMPLE_IMAGE).convert("RGB"), []
    for size in SIZES:
        buffer = io.BytesIO()
        example.resize((size, size)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def options_of(answer: str | None) -> dict[str, Any]:
    return {"max_new_tokens": 16} if answer is None else {"answer": answer}


def single_calls(images: list[bytes], answer: str | None) -> dict[tuple[int, str], tuple[str, list[Any]]]:
    """Answer and masks of each image and text, by one call of `segment` each."""
    model, processor = load_tiny()
    choices = options_of(answer) | ({} if answer is None else {"processor": processor})
    found = {}
    for number, image in enumerate(images):
        for text in TEXTS:
            inputs = processor(Image.open(io.BytesIO(image)), text)
            output = model.segment(**inputs, **choices)
            (entries,) = processor.post_process_instance_segmentation(output, inputs)
            masks = [entry["mask"].numpy() for entry in entries]
            found[number, text] = (processor.decode_answers(output, inputs)[0], masks)
    return found


def run(batch_size: int, images: list[bytes], expected: dict[Any, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One server, asked everything."""
    # Everything that is sent may wait: what is measured are answers, and no refusals
    command = [sys.executable, "-m", "litelvlm", "serve", "--port", "0", "--json", "--device", "cpu"]
    command += ["--batch-size", str(batch_size), "--max-waiting", str(4 * options.clients), "--max-seconds", "120"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        print(f"batches of {batch_size} at {url} ...", file=sys.stderr)
        for number in range(len(images)):
            ask(url, images, expected, "good", number, options)  # each image once, as in a service that is in use
        plan = make_plan(options.requests)
        memory = [memory_of(server)]
        started = time.perf_counter()
        with ThreadPoolExecutor(options.clients) as clients:
            sent = []
            for done in clients.map(
                lambda entry: ask(url, images, expected, entry[1], entry[0], options), enumerate(plan)
            ):
                sent.append(done)
                if len(sent) % max(1, options.requests // 10) == 0:
                    memory.append(memory_of(server))
        seconds = time.perf_counter() - started
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(180)
    good = sorted(each.seconds for each in sent if each.kind == "good" and each.status == 200)
    return {
        "batch_size": batch_size,
        "statuses": dict(sorted(Counter((each.kind, each.status) for each in sent).items())),
        "wrong": sum(not each.is_right for each in sent),
        "rate": len(good) / seconds,
        "p50": statistics.median(good),
        "p99": good[int(0.99 * (len(good) - 1))],
        "memory": memory,
        "exit": code,
    }


def make_plan(num_requests: int) -> list[str]:
    chance = random.Random(0)
    bad = ("malformed", "oversized", "slow")
    return [chance.choice(bad) if chance.random() < BAD_SHARE else "good" for _ in range(num_requests)]


def ask(
    url: str, images: list[bytes], expected: dict[Any, Any], kind: str, number: int, options: argparse.Namespace
) -> Sent:
    """Sends one request, and looks whether it is answered as it should be."""
    image, text = number % len(images), TEXTS[number // len(images) % len(TEXTS)]
    body = {"image": base64.b64encode(images[image]).decode(), "texts": [text]} | options_of(options.answer)
    started = time.perf_counter()
    try:
        if kind == "slow":
            answer = send_slowly(url, json.dumps(body).encode())
        elif kind == "malformed":
            wrong = ({"texts": []}, {"image": body["image"][:300]}, {"max_new_tokens": 10**9}, {"texts": "x" * 9999})
            answer = httpx.post(f"{url}/v1/segment", json=body | wrong[number % len(wrong)], timeout=180)
        elif kind == "oversized":
            answer = httpx.post(f"{url}/v1/segment", content=b"A" * (30 * 2**20), timeout=180)
        else:
            answer = httpx.post(f"{url}/v1/segment", json=body, timeout=180)
    except httpx.HTTPError as error:
        # Who sends on after the refusal may find the connection closed
        return Sent(
            kind, -1, time.perf_counter() - started, kind == "oversized" and isinstance(error, httpx.WriteError)
        )
    seconds = time.perf_counter() - started
    if kind in ("good", "slow"):
        is_right = answer.status_code == 200 and is_same(answer.json()["results"], expected[image, text], SIZES[image])
    else:
        is_right = answer.status_code in (413, 422)
    return Sent(kind, answer.status_code, seconds, is_right)


def send_slowly(url: str, body: bytes, pieces: int = 8, pause: float = 0.25) -> httpx.Response:
    def parts() -> Any:
        for start in range(0, len(body), len(body) // pieces):
            yield body[start : start + len(body) // pieces]
            time.sleep(pause)

    return httpx.post(f"{url}/v1/segment", content=parts(), timeout=180)


def is_same(results: list[Any], expected: tuple[str, list[Any]], size: int) -> bool:
    answer, masks = expected
    found = [decode_segmentation(mask["segmentation"], size, size) for mask in results[0]["masks"]]
    return (
        results[0]["answer"] == answer
        and len(found) == len(masks)
        and all((one != other).mean() < TOLERANCE for one, other in zip(found, masks, strict=True))
    )


def memory_of(server: subprocess.Popen) -> float:
    """Of the processes that hold the model and read requests, in MiB."""
    names = ("Segmenter", "Gateway", "ProxyActor")
    total = 0
    for child in psutil.Process(server.pid).children(recursive=True):
        try:
            if any(name in " ".join(child.cmdline()) for name in names):
                total += child.memory_info().rss
        except psutil.Error:  # gone by now
            continue
    return total / 2**20


def describe(options: argparse.Namespace, lines: list[dict[str, Any]]) -> str:
    command = f"python scripts/load_test.py --requests {options.requests} --clients {options.clients}"
    command += f" --batch-sizes {' '.join(map(str, options.batch_sizes))}"
    command += "" if options.answer is None else f' --answer "{options.answer}"'
    text = "# Load on the service\n\n"
    text += f"`{command}`: {options.requests} requests of {options.clients} clients on loopback, a fifth of them "
    text += "malformed, oversized or slow; the embedded model, 4 images of up to 512 pixels, a text each. "
    text += f"Python {platform.python_version()}, {psutil.cpu_count()} CPU cores, no GPU.\n\n"
    text += "| batch size | answers per second | p50, s | p99, s | wrong answers | exit code |\n"
    text += "| --- | --- | --- | --- | --- | --- |\n"
    for line in lines:
        text += f"| {line['batch_size']} | {line['rate']:.2f} | {line['p50']:.2f} | {line['p99']:.2f} "
        text += f"| {line['wrong']} | {line['exit']} |\n"
    text += "\nAn answer is wrong if its text or its masks differ from those of a single call of `segment` (by more "
    text += (
        f"than {TOLERANCE:.1%} of the pixels, which padding may move), or if what is malformed or oversized is not "
    )
    text += "refused by 413 or 422. Statuses (-1: the connection was closed while 30 MiB were still being sent):\n\n"
    for line in lines:
        said = ", ".join(f"{kind} {status}: {count}" for (kind, status), count in line["statuses"].items())
        text += f"- batch size {line['batch_size']}: {said}\n"
    text += "\nMemory of the model's, the gateway's and the proxy's process together, in MiB, before and after each "
    text += "tenth of the requests:\n\n"
    for line in lines:
        text += f"- batch size {line['batch_size']}: {', '.join(f'{value:.0f}' for value in line['memory'])}\n"
    return text


if __name__ == "__main__":
    main()
