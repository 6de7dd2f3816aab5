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
Asks the page of `litelvlm demo` a question in a headless browser, as a person would, and writes what it shows then:
`python scripts/screenshot_demo.py docs/demo.png`. It needs Debian's chromium, and the extra `test`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from litelvlm import EXAMPLE_IMAGE

CHROMIUM = "/usr/bin/chromium"
TIMEOUT_MS = 60_000


@contextmanager
def serve(*flags: str) -> Iterator[str]:
    """The address of `litelvlm demo`, on any free port, until the block ends."""
    command = [sys.executable, "-m", "litelvlm", "demo", "--port", "0", "--json", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "no_proxy": "*"}) as server:
        try:
            line = server.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise RuntimeError("`litelvlm demo` has ended before it served.")
            yield json.loads(line)["url"]
        finally:
            server.terminate()


@contextmanager
def browse(url: str, **options: Any) -> Iterator[Page]:
    """A page of headless chromium at that address."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(**options)
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(url)
        yield page
        browser.close()


def upload_file(page: Page, path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(path)


def upload(page: Page, path: Path) -> None:
    """Gives the page an image, and waits until it is shown."""
    upload_file(page, path)
    expect(page.locator("#image img")).to_be_visible(timeout=TIMEOUT_MS)


def ask(page: Page, text: str) -> None:
    """Types a text, presses the button, and waits for the answer."""
    page.get_by_label("What to segment").fill(text)
    with answered(page):
        page.get_by_role("button", name="Segment").click()


def keep(page: Page, num_tokens: int) -> None:
    """Moves the slider by its number, and waits for the answer."""
    number = page.locator("#budget input[type=number]")
    with answered(page):
        number.fill(str(num_tokens))
        number.blur()


@contextmanager
def answered(page: Page) -> Iterator[None]:
    """Waits until what the block does has given another image of tokens."""
    before = sources(page, "tokens")
    yield
    page.wait_for_function(
        "before => { const now = [...document.querySelectorAll('#tokens img')].map(image => image.src);"
        " return now.length && now.join() != before && !document.querySelector('.progress-text, .eta-bar'); }",
        arg=",".join(before),
    )


def sources(page: Page, name: str) -> list[str]:
    """Addresses of the images that a view is made of: what is below, then its layers."""
    return page.locator(f"#{name} img").evaluate_all("images => images.map(image => image.src)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="such as docs/demo.png")
    options = parser.parse_args()
    with serve() as url, browse(url, viewport={"width": 1280, "height": 860}) as page:
        upload(page, EXAMPLE_IMAGE)
        ask(page, "the green star")  # of a first question the times are longer than of others
        ask(page, "the red circle")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        page.screenshot(path=options.file, full_page=True)
    # This palette keeps flat what is noise, so that the file is small
    shot = Image.open(options.file).convert("RGB")
    shot.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(options.file, optimize=True)
