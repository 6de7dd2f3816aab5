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
"""Every kind of image arrives upright, in RGB, with the values that a person sees."""

import base64
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from litelvlm.modeling.fetching_litelvlm import fetch
from litelvlm.modeling.images_litelvlm import load_rgb

GREY = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def pixels(image) -> np.ndarray:
    loaded = load_rgb(image)
    assert loaded.mode == "RGB"
    return np.asarray(loaded)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(COLOUR),
        COLOUR,
        COLOUR.transpose(2, 0, 1),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        torch.from_numpy(COLOUR).permute(2, 0, 1).float() / 255,
        (COLOUR / 255).astype(np.float64),
        COLOUR.astype(np.uint16) * 257,
        np.concatenate([COLOUR, np.full((3, 5, 1), 255, np.uint8)], axis=-1),
    ],
    ids=["pil", "hwc", "chw", "tensor", "float tensor", "float array", "uint16", "rgba array"],
)
def test_colour_in_any_form_is_the_same_image(image):
    np.testing.assert_array_equal(pixels(image), COLOUR)


@pytest.mark.parametrize("image", [Image.fromarray(GREY), GREY, GREY[..., None], GREY[None], torch.from_numpy(GREY)])
def test_grey_becomes_three_equal_channels(image):
    np.testing.assert_array_equal(pixels(image), np.repeat(GREY[..., None], 3, axis=-1))


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for image in (Image.fromarray(deep), tmp_path / "deep.png"):
        np.testing.assert_array_equal(pixels(image), np.repeat(GREY[..., None], 3, axis=-1))


def test_transparency_shows_white():
    clear = Image.fromarray(np.dstack([COLOUR, np.zeros((3, 5), np.uint8)]))
    assert (pixels(clear) == 255).all()
    palette = Image.fromarray(COLOUR).quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert (pixels(palette)[0, 0] == 255).all() and not (pixels(palette) == 255).all()
    grey_alpha = Image.fromarray(np.dstack([GREY, np.zeros((3, 5), np.uint8)]))
    assert grey_alpha.mode == "LA" and (pixels(grey_alpha) == 255).all()


@pytest.mark.parametrize(("mode", "multiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_multiplied_transparency_shows_what_plain_transparency_shows(mode, multiplied):
    pixels = np.zeros((4, 4, len(mode)), np.uint8) + 200
    pixels[:2, :, -1] = 128
    image = Image.fromarray(pixels, mode)
    got, expected = (np.asarray(load_rgb(p)).astype(int) for p in (image.convert(multiplied), image))
    assert abs(got - expected).max() <= 2


@pytest.mark.parametrize("form", [lambda data: data, lambda data: {"bytes": data, "path": "gone.png"}])
def test_bytes_of_a_file_are_the_image(tmp_path, form):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    file = (tmp_path / "deep.png").read_bytes()
    np.testing.assert_array_equal(pixels(form(file)), np.repeat(GREY[..., None], 3, axis=-1))
    with pytest.raises(ValueError, match="An image cannot be read as an image: it is of no format that Pillow knows"):
        load_rgb(form(b"no image"))
    np.testing.assert_array_equal(pixels({"bytes": None, "path": str(tmp_path / "deep.png")}), pixels(file))
    with pytest.raises(ValueError, match="of type NoneType; allowed are PIL images"):
        load_rgb({"bytes": None, "path": None})


def test_url_that_gives_no_image_is_named():
    with pytest.raises(ValueError, match=r"'http://127\.0\.0\.1:9/cat\.png' cannot be fetched as an image"):
        load_rgb("http://127.0.0.1:9/cat.png")
    with pytest.raises(ValueError, match="'data:image/png;base64,AAAA' cannot be fetched as an image"):
        load_rgb("data:image/png;base64,AAAA")


def test_palette_and_cmyk_keep_their_colours():
    red = Image.new("RGB", (4, 3), (255, 0, 0))
    for mode in ("P", "CMYK", "YCbCr"):
        assert np.abs(pixels(red.convert(mode)).astype(int) - [255, 0, 0]).max() <= 2, mode
    assert (pixels(Image.new("1", (2, 2), 1)) == 255).all()


def test_exif_orientation_turns_the_image_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(pixels(str(tmp_path / "turned.png")), np.rot90(COLOUR, -1))


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:600])
    encoded = base64.b64encode(whole.read_bytes() * 20).decode()
    assert len(encoded) > 10_000
    for image, message in [
        (tmp_path / "none.png", r"There is no file .*none\.png"),
        (tmp_path / ("long" * 60) / "none.png", r"There is no file .*longlong/none\.png'"),
        (tmp_path / "text.png", r"text\.png' cannot be read as an image"),
        (tmp_path / "cut.png", r"cut\.png' cannot be read as an image"),
        (tmp_path, "cannot be read as an image"),
        (np.zeros((2, 3, 5)), r"shape \(2, 3, 5\); allowed"),
        (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\); allowed"),
        (np.full((3, 4, 3), 2.0), "values from 2.0 to 2.0; allowed are 0 to 1"),
        (np.full((3, 4), -1), "values from -1 to -1; allowed are 0 to 255"),
        (np.zeros((3, 4), complex), "dtype complex128; allowed are"),
        (encoded, "cannot be read as an image: File name too long"),
        ("a\0b.png", "cannot be read as an image"),
        (Image.open(tmp_path / "cut.png"), "An image cannot be read as an image: "),
        (7, "of type int; allowed are"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            load_rgb(image)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0II*\0", b"\xff" * 40], ids=["text", "cut", "noise"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_turns_nothing_however_often_it_is_looked_at(tmp_path, exif):
    for name in ("damaged.png", "damaged.webp"):
        Image.fromarray(COLOUR).save(tmp_path / name, exif=exif, lossless=True)
        image = Image.open(tmp_path / name)
        for source in (image, image, tmp_path / name):
            np.testing.assert_array_equal(pixels(source), COLOUR)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """`serve(name)` is the URL of a file of `tmp_path`, from a server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()


def test_a_url_shows_what_its_file_shows(tmp_path, serve):
    Image.fromarray(np.dstack([COLOUR, GREY])).save(tmp_path / "clear.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("clear.png", "deep.png"):
        encoded = base64.b64encode((tmp_path / name).read_bytes()).decode()
        for url in (f"data:image/png;base64,{encoded}", serve(name)):
            np.testing.assert_array_equal(pixels(url), pixels(tmp_path / name))
    assert (pixels(serve("clear.png"))[0, 0] == 255).all() and pixels(serve("deep.png"))[0, 1, 0] == GREY[0, 1]
    with pytest.raises(ValueError, match=r"none\.png' cannot be fetched as an image: HTTP Error 404"):
        load_rgb(serve("none.png"))


def test_url_that_drips_or_never_ends_is_left(serve_bytes, monkeypatch):
    monkeypatch.setattr("litelvlm.modeling.images_litelvlm.fetch", partial(fetch, max_seconds=0.3, max_bytes=2**20))
    for pause, message in ((0.05, "time"), (0, "more than 1 MiB")):
        address = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n", repeat(bytes(2**12)), pause=pause)
        with pytest.raises(ValueError, match=rf"'http://{address}/a\.png' cannot be fetched as an image: .*{message}"):
            load_rgb(f"http://{address}/a.png")


@pytest.mark.parametrize(("width", "height"), [(41, 25), (100, 21), (100, 1000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_pillows_limit_are_refused_before_they_are_decoded(tmp_path, monkeypatch, width, height):
    path = tmp_path / "large.png"
    Image.new("RGB", (width, height)).save(path)
    opened = Image.open(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    for image in (path, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), opened):
        with pytest.raises(ValueError, match="pixels"):
            load_rgb(image)


def test_floats_and_thirty_two_bits_are_read_as_bright_as_they_are_or_refused(tmp_path):
    light, grey = (GREY / 255).astype(np.float32), np.repeat(GREY[..., None], 3, axis=-1)
    Image.fromarray(light).save(tmp_path / "float.tiff")
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "integer.tiff")
    for image in (Image.fromarray(light), tmp_path / "float.tiff", tmp_path / "integer.tiff"):
        np.testing.assert_array_equal(pixels(image), grey)
    np.testing.assert_array_equal(pixels(Image.fromarray(GREY).convert("I")), grey)
    np.testing.assert_array_equal(pixels((GREY.astype(np.uint16) * 257).astype(">u2")), grey)
    Image.fromarray(light * 1000).save(tmp_path / "float.tiff")
    Image.fromarray(GREY.astype(np.int32) * 2**16).save(tmp_path / "integer.tiff")
    for image, allowed in (
        (tmp_path / "float.tiff", "0 to 1"),
        (tmp_path / "integer.tiff", "0 to 255"),
        (Image.fromarray(GREY).convert("F"), "0 to 1"),
        (Image.fromarray(light * float("nan")), "0 to 1"),
        (GREY.astype(np.uint32) * 2**24, "0 to 255"),
    ):
        with pytest.raises(ValueError, match=f"allowed are {allowed}"):
            load_rgb(image)
