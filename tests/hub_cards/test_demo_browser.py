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
"""`litelvlm demo` as people use it: a server of its own, and a real browser."""

import importlib.util
import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")

pytest.importorskip("playwright", reason="playwright is not installed (extra `test`)")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM} (Debian's package chromium)")


@pytest.fixture(scope="module")
def driver():
    spec = importlib.util.spec_from_file_location("screenshot_demo", ROOT / "scripts" / "screenshot_demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def url(driver):
    with driver.serve() as url:
        yield url


def download(page, name):
    with page.expect_download() as started:
        page.get_by_role("button", name=name).click()
    return started.value.path()


def test_page_answers_questions_about_an_upload(driver, url, tmp_path):
    asked = []
    with driver.browse("about:blank") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        driver.upload(page, EXAMPLE_IMAGE)
        driver.ask(page, "the red circle")
        first = driver.sources(page, "tokens"), driver.sources(page, "masks")
        assert len(first[0]) == 3 and len(first[1]) == 2  # what is below, and a layer for each kind
        assert "[SEG]" in page.get_by_label("Answer").input_value()
        assert page.get_by_text("85 of 256", exact=True).is_visible()

        driver.keep(page, 40)
        slid = driver.sources(page, "tokens")
        assert slid != first[0] and page.get_by_text("40 of 256", exact=True).is_visible()
        driver.ask(page, "the green star")
        assert driver.sources(page, "tokens") != slid and driver.sources(page, "masks") != first[1]
        # The image was encoded for the first question only
        assert "kept from before" in page.locator("#times").inner_text()

        mask = np.asarray(Image.open(download(page, "Mask (PNG)")))
        assert mask.shape == Image.open(EXAMPLE_IMAGE).size[::-1] and set(np.unique(mask)) == {0, 255}
        (annotation,) = json.loads(download(page, "COCO (JSON)").read_text())["annotations"]
        assert annotation["text"] == "the green star" and annotation["area"] == (mask > 0).sum()

        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        page.get_by_label("Remove Image").click()
        driver.upload_file(page, broken)
        page.get_by_text("The file cannot be read as an image; choose another.").wait_for()
    hosts = {address.split("/")[2] for address in asked if address.startswith("http")}
    assert hosts == {url.split("/")[2]}


@pytest.mark.parametrize(
    "path", ["/etc/hostname", ROOT / "pyproject.toml", EXAMPLE_IMAGE.parent / "litelvlm-tiny/config.json"]
)
def test_files_of_the_machine_are_not_served(url, path):
    with pytest.raises(HTTPError) as raised:
        build_opener(ProxyHandler({})).open(f"{url}gradio_api/file={path}")
    assert raised.value.code in (403, 404)
