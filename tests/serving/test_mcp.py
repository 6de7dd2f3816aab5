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
"""A model as a tool of agents, asked by the protocol's own client: in memory, and over standard input and output."""

import asyncio
import base64
import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE
from litelvlm.commands.main import main
from litelvlm.data.masks import decode_segmentation
from litelvlm.modeling import fetching_litelvlm

pytest.importorskip("mcp")
from mcp import Client, StdioServerParameters, stdio_client

from litelvlm.serving import mcp as serving
from litelvlm.serving.mcp import build_server

TEXTS = ["the red circle", "the green star"]
ENCODED = base64.b64encode(EXAMPLE_IMAGE.read_bytes()).decode()


@pytest.fixture(scope="module")
def expected(embedded):
    """The masks of the texts, as the package finds them."""
    model, processor = embedded
    inputs = processor(images=EXAMPLE_IMAGE, text=TEXTS)
    output = model.segment(**inputs, max_new_tokens=32)
    found = processor.post_process_instance_segmentation(output, inputs)
    return [[entry["mask"].numpy() for entry in entries] for entries in found]


def call(server, image, texts, **client_options):
    """The result of one call by the protocol's client; `server` may be a transport too."""

    async def ask():
        async with Client(server, **client_options) as client:
            (tool,) = (await client.list_tools()).tools
            assert tool.name == "segment" and tool.input_schema["required"] == ["image", "texts"]
            return await client.call_tool("segment", {"image": image, "texts": texts})

    return asyncio.run(ask())


def assert_answered(result, expected):
    assert not result.is_error, result.content
    results = result.structured_content["results"]
    assert [entry["text"] for entry in results] == TEXTS
    assert all("[SEG]" in entry["answer"] and entry["reason"] is None for entry in results)
    for entry, wanted in zip(results, expected, strict=True):
        (mask,), (said,) = wanted, entry["masks"]
        assert np.array_equal(decode_segmentation(said["segmentation"], *mask.shape), mask)
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        assert said["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert said["area"] == mask.sum() and 0.5 < said["score"] <= 1
    said, drawn = result.content
    assert "the green star: " in said.text and "counts" not in said.text
    assert drawn.mime_type == "image/png"
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.data))))
    original = np.asarray(Image.open(EXAMPLE_IMAGE).convert("RGB"))
    assert overlay.shape == original.shape and not np.array_equal(overlay, original)


@pytest.mark.parametrize("image", [ENCODED, f"data:image/png;base64,{ENCODED}"], ids=["base64", "data URL"])
def test_an_agent_gets_the_masks_that_the_package_finds(embedded, expected, image):
    assert_answered(call(build_server(*embedded, max_new_tokens=32), image, TEXTS), expected)


def test_the_command_speaks_nothing_but_the_protocol_on_stdout(expected):
    """A line that is no message of the protocol reaches the client's handler as an error."""
    heard = []

    async def hear(message):
        heard.append(message)

    command = ["-m", "litelvlm", "mcp", "--allow-folder", str(EXAMPLE_IMAGE.parent)]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    result = call(stdio_client(parameters), EXAMPLE_IMAGE.name, TEXTS, message_handler=hear)
    assert_answered(result, expected)
    assert not [message for message in heard if isinstance(message, Exception)]


def test_an_answer_without_a_mask_says_why_and_shows_the_image_as_it_is(embedded):
    result = call(build_server(*embedded, max_new_tokens=1), ENCODED, TEXTS)
    assert [entry["masks"] for entry in result.structured_content["results"]] == [[], []]
    assert result.content[0].text.count("no mask: the answer holds no [SEG]") == 2
    assert np.array_equal(
        Image.open(io.BytesIO(base64.b64decode(result.content[1].data))), Image.open(EXAMPLE_IMAGE).convert("RGB")
    )


def test_a_large_image_is_shown_small_and_its_masks_are_whole(embedded):
    buffer = io.BytesIO()
    Image.open(EXAMPLE_IMAGE).resize((2048, 2000)).save(buffer, "JPEG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert encoded.startswith("/")  # as a path does
    result = call(build_server(*embedded, answer="It is [SEG]."), encoded, TEXTS[:1])
    (entry,) = result.structured_content["results"]
    assert entry["masks"][0]["segmentation"]["size"] == [2000, 2048]
    assert Image.open(io.BytesIO(base64.b64decode(result.content[1].data))).size == (1024, 1000)


@pytest.fixture
def photos(tmp_path):
    """A folder that is allowed, and what lies in and beside it."""
    (tmp_path / "photos" / "a b").mkdir(parents=True)
    Image.open(EXAMPLE_IMAGE).save(tmp_path / "photos" / "a b" / "in.png")
    Image.open(EXAMPLE_IMAGE).save(tmp_path / "secret.png")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    os.mkfifo(tmp_path / "photos" / "pipe.png")  # whose reader waits for ever
    return tmp_path / "photos"


def test_images_in_an_allowed_folder_are_named_by_their_paths(embedded, photos):
    server = build_server(*embedded, [photos], answer="It is [SEG].")
    inside = photos / "a b" / "in.png"
    for name in ("a b/in.png", str(inside), inside.as_uri(), str(photos / ".." / "photos" / "a b" / "in.png")):
        assert not call(server, name, TEXTS[:1]).is_error, name


@pytest.mark.parametrize(
    "name", ["../secret.png", "SECRET", "link.png", "no.png", "../no.png", "pipe.png", ".", "/etc/host.conf"]
)
def test_a_path_tells_nothing_of_what_is_not_in_an_allowed_folder(embedded, photos, name):
    name = str(photos.parent / "secret.png") if name == "SECRET" else name
    result = call(build_server(*embedded, [photos]), name, TEXTS)
    assert result.is_error and f"there is no such file in {photos}" in result.content[0].text
    # Where no folder is allowed, not even of what is
    result = call(build_server(*embedded), name, TEXTS)
    assert result.is_error and "allowed are base64 and data URLs, and no paths" in result.content[0].text


@pytest.mark.parametrize(
    ("image", "texts", "message"),
    [
        ("notes.txt", TEXTS, "which cannot be read: cannot identify an image"),
        ("no base64", TEXTS, "neither an image in base64"),
        ("https://example.org/a.png", TEXTS, "no URLs are fetched"),
        (ENCODED, [], "at least 1 item"),
        (ENCODED, ["a"] * 17, "at most 16 items"),
        (ENCODED, ["a", " "], "texts that are not empty"),
        (ENCODED, ["a" * 2001], "has 2001 characters; allowed are 2000"),
    ],
)
def test_what_cannot_be_asked_is_told_to_the_agent(embedded, photos, image, texts, message, monkeypatch):
    monkeypatch.setenv("LITELVLM_FETCH_URLS", "1")  # is said to an endpoint
    result = call(build_server(*embedded, [photos]), image, texts)
    assert result.is_error and message in result.content[0].text


def test_the_limits_are_those_of_strangers_images(embedded, photos, monkeypatch):
    server = build_server(*embedded, [photos], max_new_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(fetching_litelvlm, "UNTRUSTED_PIXELS", 100)
        for image in (ENCODED, "a b/in.png"):
            assert "pixels are more than the limit, 100" in call(server, image, TEXTS).content[0].text
    monkeypatch.setattr(serving, "MAX_SECONDS", 0.0)
    assert "take longer than 0 seconds; ask fewer texts" in call(server, ENCODED, TEXTS).content[0].text


def test_what_cannot_be_served_is_said_before(make_text_model, processor, tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match="answers in text only"):
        build_server(make_text_model(sam_config=None), processor)
    assert main(["mcp", "--allow-folder", str(tmp_path / "no")]) == 2
    assert f"--allow-folder is '{tmp_path / 'no'}', which is no folder here" in capsys.readouterr().err
    assert main(["mcp", "--method", "trimm"]) == 2
    assert "Did you mean 'trim'?" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "litelvlm.serving.mcp", None)
    assert main(["mcp"]) == 2
    assert 'install it with pip install "litelvlm[mcp]"' in capsys.readouterr().err
