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
"""PaliGemma's mask decoder against its published description in NumPy, and its file without pickles."""

import json
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from litelvlm import LiteLVLMMaskDecoder
from litelvlm.commands.main import main
from litelvlm.conversion.mask_decoder import convert_mask_decoder
from litelvlm.modeling.locations_litelvlm import add_masks, read_locations

CODES = torch.tensor([[i * 8 % 128 for i in range(16)], [127 - i for i in range(16)]])
BOX = "<loc0256><loc0512><loc0768><loc1023>"


def published(hidden_size=16, code_size=8, num_codes=128):
    """Random arrays by the names, and in the layouts, of vae-oid.npz, with one of its encoder."""
    rng = np.random.default_rng(0)
    convs = {"decoder.0": (hidden_size, code_size, 1, 1), "decoder.12": (1, hidden_size // 8, 1, 1)}
    for block in (2, 3):
        for layer, kernel in ((0, 3), (2, 3), (4, 1)):
            convs[f"decoder.{block}.net.{layer}"] = (hidden_size, hidden_size, kernel, kernel)
    arrays = {
        "_vq_vae._embedding": rng.normal(size=(num_codes, code_size)),
        "encoder.0.weight": rng.normal(size=(2, 2)),
    }
    for i, halves in enumerate((1, 2, 4, 8)):  # a transposed convolution has its inputs first
        before = hidden_size if i == 0 else 2 * hidden_size // halves
        convs[f"decoder.{4 + 2 * i}"] = (before, hidden_size // halves, 4, 4)
    for name, shape in convs.items():
        width = shape[1] if name in ("decoder.4", "decoder.6", "decoder.8", "decoder.10") else shape[0]
        arrays[f"{name}.weight"] = 0.3 * rng.normal(size=shape)
        arrays[f"{name}.bias"] = 0.3 * rng.normal(size=width)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def convolve(image, kernel, bias, padding):
    """A plain convolution of `(channels, H, W)` with `(out, in, k, k)`."""
    side = kernel.shape[-1]
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, kernel) + bias[:, None, None]


def reference(arrays, codes):
    """One mask as big_vision's Flax code describes it: upsampling is a convolution of the image with gaps."""

    def conv(name, image, padding):
        return convolve(image, arrays[f"{name}.weight"], arrays[f"{name}.bias"], padding)

    relu = lambda values: np.maximum(values, 0)  # noqa: E731
    image = arrays["_vq_vae._embedding"][codes].reshape(4, 4, -1).transpose(2, 0, 1)
    image = relu(conv("decoder.0", image, 0))
    for block in ("decoder.2.net", "decoder.3.net"):
        inside = relu(conv(f"{block}.0", image, 1))
        inside = relu(conv(f"{block}.2", inside, 1))
        image = image + conv(f"{block}.4", inside, 0)
    for name in ("decoder.4", "decoder.6", "decoder.8", "decoder.10"):
        with_gaps = np.zeros((image.shape[0], *(2 * side - 1 for side in image.shape[1:])), image.dtype)
        with_gaps[:, ::2, ::2] = image
        kernel = arrays[f"{name}.weight"][:, :, ::-1, ::-1].swapaxes(0, 1)
        image = relu(convolve(with_gaps, kernel, arrays[f"{name}.bias"], 2))
    return conv("decoder.12", image, 0)[0]


@pytest.fixture
def decoder_folder(tmp_path):
    np.savez(tmp_path / "vae-oid.npz", **published())
    assert convert_mask_decoder(tmp_path / "vae-oid.npz", tmp_path / "decoder")["left_out"] == ["encoder.0.weight"]
    return tmp_path / "decoder"


@torch.no_grad()
def test_masks_are_those_of_the_published_description(decoder_folder):
    masks = LiteLVLMMaskDecoder.from_pretrained(decoder_folder).double()(CODES)
    assert masks.shape == (2, 64, 64)
    arrays = {name: array.astype(np.float64) for name, array in published().items()}
    for mask, codes in zip(masks, CODES, strict=True):
        np.testing.assert_allclose(mask.numpy(), reference(arrays, codes.numpy()), rtol=1e-9, atol=1e-9)


def test_sizes_by_default_are_the_published_ones():
    with torch.device("meta"):
        decoder = LiteLVLMMaskDecoder(LiteLVLMMaskDecoder.config_class())
    shapes = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert shapes["embedding.weight"] == (128, 512) and shapes["conv_in.weight"] == (128, 512, 1, 1)
    widths = [shapes[f"upsamplings.{i}.weight"][:2] for i in range(4)]
    assert widths == [(128, 128), (128, 64), (64, 32), (32, 16)] and shapes["conv_out.weight"] == (1, 16, 1, 1)


def test_mask_fills_the_box_that_the_answer_says(decoder_folder, processor):
    decoder = LiteLVLMMaskDecoder.from_pretrained(decoder_folder)
    seg = "".join(f"<seg{code:03}>" for code in CODES[0].tolist())
    processor.tokenizer.add_tokens([f"<loc{i:04}>" for i in range(1024)] + [f"<seg{i:03}>" for i in range(128)])
    inputs = processor(text="segment cats")
    answer = processor.tokenizer(f"{BOX}{seg} cat ; {BOX} dog ; {seg} bird", return_tensors="pt")["input_ids"]
    sequences = torch.cat([inputs["input_ids"], answer], dim=1)
    (found,) = processor.post_process_locations(sequences, inputs, [(128, 128)], mask_decoder=decoder)
    cat, dog, bird = found
    # Of the size of the decoder's masks, so that they are pasted as they are
    assert cat["box"] == [64, 32, 128, 96] and cat["mask"].shape == (128, 128)
    with torch.no_grad():
        values = decoder(CODES[:1])[0]
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[32:96, 64:128] = values > 0
    assert torch.equal(cat["mask"], inside) and 0 < int(inside.sum()) < 64 * 64
    assert cat["score"] == pytest.approx(float((values[values > 0] * 0.5 + 0.5).clamp(max=1).mean()), abs=1e-5)
    for entry in (dog, bird):
        assert entry["mask"] is None and entry["score"] is None
    assert dog["box"] == cat["box"] and bird["codes"] == cat["codes"]


def test_folder_loads_without_the_package(decoder_folder, tmp_path):
    torch.save(LiteLVLMMaskDecoder.from_pretrained(decoder_folder)(CODES), tmp_path / "expected.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['litelvlm'] = None\n"
        "from transformers import AutoModel\n"
        f"decoder = AutoModel.from_pretrained({str(decoder_folder)!r}, trust_remote_code=True)\n"
        f"assert torch.equal(decoder(torch.tensor({CODES.tolist()})), torch.load({str(tmp_path / 'expected.pt')!r}))\n"
        "print('same')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "same", done.stderr[-2000:]
    assert (decoder_folder / "model.safetensors").is_file()


class Code:
    """What a pickle may run."""

    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.12.bias": None}, "lacks 1 arrays of PaliGemma's mask decoder, such as 'decoder.12.bias'"),
        ({"decoder.12.bias": np.array([Code()], dtype=object)}, "cannot be read as an .npz file of numbers"),
        (
            {"decoder.6.bias": np.zeros(3)},
            r"'decoder.6.bias' of .* has shape \(3,\); allowed is upsamplings.1.bias's",
        ),
        ({"decoder.12.bias": np.array([np.nan])}, "holds NaN or infinity"),
        ({"decoder.12.bias": np.array([1j])}, "holds complex128, and no floating-point numbers"),
        ({"_vq_vae._embedding": np.zeros(128)}, r"an array of shape \(128,\), where 2 dimensions are wanted"),
    ],
)
def test_files_that_are_no_decoder_are_refused_and_run_nothing(tmp_path, capsys, change, message):
    arrays = {name: array for name, array in (published() | change).items() if array is not None}
    np.savez(tmp_path / "vae.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        convert_mask_decoder(tmp_path / "vae.npz", tmp_path / "decoder")
    assert "ran" not in capsys.readouterr().out and not (tmp_path / "decoder").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "vae.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"vae.npz' cannot be read as an .npz file of numbers: ."):
        convert_mask_decoder(tmp_path / "vae.npz", tmp_path / "decoder")


def test_command_converts_it(tmp_path, capsys):
    np.savez(tmp_path / "vae-oid.npz", **published())
    arguments = ["convert", str(tmp_path / "vae-oid.npz"), str(tmp_path / "decoder")]
    assert main([*arguments, "--clip", "org/clip"]) == 2
    assert "--clip is of a checkpoint, but" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "PaliGemma's mask decoder" in capsys.readouterr().out
    assert LiteLVLMMaskDecoder.from_pretrained(tmp_path / "decoder").config.hidden_size == 16


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_codes": 64}, "`num_codes` is 64; allowed are whole numbers of at least 128"),
        ({"hidden_size": 4}, "`hidden_size` is 4; allowed are whole numbers of at least 8"),
        ({"hidden_size": 8.0}, r"`hidden_size` is 8\.0"),
        ({"code_size": 0}, "`code_size` is 0; allowed are whole numbers of at least 1"),
    ],
)
def test_decoder_of_sizes_that_cannot_work_is_refused_as_it_is_made(tmp_path, sizes, message):
    config = LiteLVLMMaskDecoder.config_class(**{"hidden_size": 16, "code_size": 8} | sizes)
    with pytest.raises(ValueError, match=message):
        LiteLVLMMaskDecoder(config)


@pytest.mark.parametrize("sizes", [{"num_codes": 64}, {"hidden_size": 4}])
def test_decoder_of_such_sizes_is_refused_as_it_is_loaded_or_converted(tmp_path, sizes):
    (name,) = sizes
    LiteLVLMMaskDecoder(LiteLVLMMaskDecoder.config_class(hidden_size=16, code_size=8)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    with pytest.raises(ValueError, match=f"`{name}` is {sizes[name]}"):
        LiteLVLMMaskDecoder.from_pretrained(tmp_path)
    np.savez(tmp_path / "vae.npz", **published(**sizes))
    with pytest.raises(ValueError, match=f"vae.npz' .*`{name}` is {sizes[name]}"):
        convert_mask_decoder(tmp_path / "vae.npz", tmp_path / "decoder")
    assert not (tmp_path / "decoder").exists()


def test_file_of_another_kind_with_its_ending_is_named(tmp_path):
    with open(tmp_path / "vae.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"vae.npz' cannot be read as an .npz file of numbers: it is no zip archive"):
        convert_mask_decoder(tmp_path / "vae.npz", tmp_path / "decoder")


@pytest.mark.parametrize("damage", ["numbers of two kinds", "deflated", "method"])
def test_archive_that_cannot_be_read_is_named_whatever_the_damage(tmp_path, damage):
    path = tmp_path / "vae.npz"
    np.savez_compressed(path, **published() | {"decoder.12.bias": np.zeros(1, [("a", "f4"), ("b", "f4")])})
    if damage != "numbers of two kinds":
        np.savez_compressed(path, **published())
        content = bytearray(path.read_bytes())
        info = zipfile.ZipFile(path).infolist()[0]
        if damage == "deflated":  # the compressed bytes themselves
            start = info.header_offset + 30 + len(info.filename) + 20
            content[start : start + 40] = b"\xff" * 40
        else:  # a way to compress that nobody knows
            at = content.index(b"PK\x01\x02") + 10
            content[at : at + 2] = struct.pack("<H", 77)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"vae.npz' cannot be read as an .npz file of numbers: ."):
        convert_mask_decoder(path, tmp_path / "decoder")


def test_decoder_that_is_not_loaded_is_refused_and_says_how_to_load_it(decoder_folder):
    objects = read_locations(f"{BOX} dog", (8, 8))  # which needs no decoder
    for given in (str(decoder_folder), decoder_folder):
        with pytest.raises(ValueError, match=r"`mask_decoder` is .*decoder.*LiteLVLMMaskDecoder.from_pretrained"):
            add_masks(objects, (8, 8), given)
