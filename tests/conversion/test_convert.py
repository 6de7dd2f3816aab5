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
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, LlavaConfig, LlavaForConditionalGeneration

from litelvlm import LiteLVLMForConditionalGeneration, LiteLVLMForSegmentation
from litelvlm.commands.main import main
from litelvlm.conversion import convert, destination, weights
from litelvlm.hub import public_name

LISA = Path(__file__).parent.parent / "golden" / "lisa_tiny"


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the official layout that a test may change."""
    return Path(shutil.copytree(LISA / "checkpoint", tmp_path / "checkpoint"))


def convert_lisa(source, dest, **options):
    return convert(source, dest, **{"clip": LISA / "clip", "seg_token_id": 217} | options)


def change(checkpoint, edit):
    """Edits the tensors of the last shard, index included."""
    path = checkpoint / "pytorch_model-00003-of-00003.bin"
    tensors = torch.load(path, weights_only=True)
    edit(tensors)
    torch.save(tensors, path)
    index = checkpoint / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    others = {key: file for key, file in content["weight_map"].items() if file != path.name}
    index.write_text(json.dumps(content | {"weight_map": others | dict.fromkeys(tensors, path.name)}))


def test_folder_loads_where_litelvlm_is_hidden(tmp_path):
    """As someone loads it from the Hub: with Transformers alone, and gives the same masks."""
    convert_lisa(LISA / "checkpoint", tmp_path / "converted")
    program = """
import sys
class Hider:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "litelvlm":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hider())
import torch
from transformers import AutoModel
from safetensors.torch import save_file
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, dtype=torch.float32)
torch.manual_seed(0)
ids = torch.randint(3, 200, (1, 270)); ids[0, 3:259] = model.config.image_token_id; ids[0, -2] = 217
image = {"pixel_values": torch.randn(1, 3, 224, 224), "sam_pixel_values": torch.randn(1, 3, 1024, 1024)}
with torch.no_grad():
    output = model(input_ids=ids, **image, pruning_method="none")
save_file({"masks": output.pred_masks[0]}, sys.argv[2])
"""
    results = {}
    for name, code in {"hidden": program, "installed": "import litelvlm\n" + program.split("Hider())\n")[1]}.items():
        out = tmp_path / f"{name}.safetensors"
        code = code if name == "hidden" else "import sys\n" + code.replace("trust_remote_code=True, ", "")
        environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
        arguments = [sys.executable, "-c", code, str(tmp_path / "converted"), str(out)]
        subprocess.run(arguments, check=True, env=environment, cwd=tmp_path)
        results[name] = load_file(out)["masks"]
    assert results["hidden"].shape == (1, 256, 256)
    torch.testing.assert_close(results["hidden"], results["installed"], rtol=0, atol=0)


def test_every_source_key_is_mapped_or_explained(tmp_path):
    report = convert_lisa(LISA / "checkpoint", tmp_path / "converted", max_shard_size="3MB")
    index = json.loads((LISA / "checkpoint" / "pytorch_model.bin.index.json").read_text())
    mapped, dropped = {t["source"] for t in report["tensors"]}, {d["key"]: d["reason"] for d in report["dropped"]}
    assert set(index["weight_map"]) <= mapped | set(dropped)
    assert dropped["model.layers.0.self_attn.rotary_emb.inv_freq"] == "computed from the configuration"
    files = {t["file"] for t in report["tensors"]}
    assert len(files) > 2 and all((tmp_path / "converted" / file).is_file() for file in files)
    assert json.loads((tmp_path / "converted" / "conversion_report.json").read_text()) == report


def test_report_and_configuration_name_no_folder_of_this_machine(tmp_path, checkpoint):
    report = convert_lisa(checkpoint, tmp_path / "converted", clip=str(LISA / "clip"))
    assert (report["source"], report["clip"]) == ("checkpoint", "clip")
    published = [path.read_text("utf-8") for path in (tmp_path / "converted").rglob("*.json")]
    assert not any(str(place) in text for place in (tmp_path, LISA) for text in published)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("xinlai/LISA-7B-v1", "xinlai/LISA-7B-v1"),
        ("open_clip:ViT-L-14/openai", "open_clip:ViT-L-14/openai"),
        ("open_clip:ViT-L-14/{}/weights.pt", "open_clip:ViT-L-14/weights.pt"),
        ("hf-hub:org/clip", "hf-hub:org/clip"),
        ("local-dir:{}/clip", "local-dir:clip"),
        ("{}/../{name}/clip", "clip"),
    ],
)
def test_report_names_hub_ids_whole_and_of_folders_the_last_part(tmp_path, name, public):
    (tmp_path / "clip").mkdir()
    (tmp_path / "weights.pt").touch()
    assert public_name(name.format(tmp_path, name=tmp_path.name)) == public


def test_tensor_without_a_place_is_an_error_that_names_it(tmp_path, checkpoint):
    change(checkpoint, lambda tensors: tensors.update({"model.surprise.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"1 of its tensors have no place in the model: model\.surprise\.weight;"):
        convert_lisa(checkpoint, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (1e6, "float16")])
def test_tensor_that_is_not_finite_as_it_is_written_is_an_error_that_names_it(tmp_path, checkpoint, value, dtype):
    change(checkpoint, lambda tensors: tensors["lm_head.weight"].view(-1)[-1:].fill_(value))
    with pytest.raises(ValueError, match=rf"lm_head\.weight holds NaN or infinity in torch\.{dtype}"):
        convert_lisa(checkpoint, tmp_path / "converted", dtype=dtype)
    assert not (tmp_path / "converted").exists()


def test_tensor_that_nothing_fills_is_an_error_that_names_it(tmp_path, checkpoint):
    change(checkpoint, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ValueError, match=r"1 of the model's are in no file: lm_head\.weight"):
        convert_lisa(checkpoint, tmp_path / "converted")


def test_pickle_that_wants_more_than_tensors_is_refused(tmp_path, checkpoint):
    path = checkpoint / "pytorch_model-00003-of-00003.bin"
    torch.save({"lm_head.weight": os.system}, path, pickle_module=pickle)
    with pytest.raises(ValueError, match="more than tensors"):
        convert_lisa(checkpoint, tmp_path / "converted")


def test_missing_shard_is_named(tmp_path, checkpoint):
    (checkpoint / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ValueError, match="files that are not there: pytorch_model-00002-of"):
        convert_lisa(checkpoint, tmp_path / "converted")


def test_vision_tower_in_the_checkpoint_wins_and_is_compared(tmp_path, checkpoint):
    tower = {
        f"model.vision_tower.vision_tower.{key}": tensor
        for key, tensor in load_file(LISA / "clip" / "model.safetensors").items()
        if key.startswith("vision_model.")
    }
    name = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
    tower[name] = tower[name] + 0.25
    change(checkpoint, lambda tensors: tensors.update(tower))
    report = convert_lisa(checkpoint, tmp_path / "converted")
    assert report["vision_tower"].startswith(
        "from the checkpoint; largest difference from the CLIP checkpoint's: 0.25"
    )
    model = LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted", dtype=torch.float32)
    torch.testing.assert_close(model.model.backbone.vision_tower.pre_layrnorm.bias, tower[name].float())


def test_interrupted_conversion_leaves_no_folder_and_the_next_one_succeeds(tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    written = []

    def cut(tensors, path, metadata):
        if written:
            raise PowerCut
        written.append(path)
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(weights, "save_file", cut)
        convert_lisa(LISA / "checkpoint", tmp_path / "converted", max_shard_size="3MB")
    assert not (tmp_path / "converted").exists()
    assert list(tmp_path.iterdir()) == []
    convert_lisa(LISA / "checkpoint", tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) == 1
    LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted")


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
making = runpy.run_path(sys.argv[3])["making"]
with making(Path(sys.argv[1])) as folder:
    (folder / "clip").mkdir()
    (folder / "clip" / "model.safetensors").touch()
    (folder / "model-00001-of-00002.safetensors").touch()
    if sys.argv[2] == "wait":
        print("at work", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "converted"), "die", destination.__file__])
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["converted.incomplete"]
    convert_lisa(LISA / "checkpoint", tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]
    names = {path.name for path in (tmp_path / "converted").iterdir()}
    assert "model.safetensors" in names and not names & {"clip", destination.LOCK, "model-00001-of-00002.safetensors"}


def test_second_conversion_to_one_folder_is_refused_and_the_first_goes_on(tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "converted"), "wait", destination.__file__]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"at work\n"
        with pytest.raises(ValueError, match=r"Another conversion is at work in .*converted\.incomplete'"):
            convert_lisa(LISA / "checkpoint", tmp_path / "converted")
        assert (tmp_path / "converted.incomplete" / "model-00001-of-00002.safetensors").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling"])
def test_what_is_no_conversions_is_not_touched(tmp_path, kind):
    theirs = tmp_path / "converted.incomplete"
    if kind == "file":
        theirs.write_text("mine")
    elif kind == "folder":
        theirs.mkdir()
        (theirs / "thesis.txt").write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir() if kind == "link" else None
        theirs.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="is no interrupted conversion"):
        convert_lisa(LISA / "checkpoint", tmp_path / "converted")
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    def appear(*arguments, **options):
        (tmp_path / "converted").mkdir()
        (tmp_path / "converted" / "mine").touch()
        save_file(*arguments, **options)

    monkeypatch.setattr(weights, "save_file", appear)
    with pytest.raises(OSError, match="converted"):
        convert_lisa(LISA / "checkpoint", tmp_path / "converted")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["converted", "mine"]


def test_disk_that_becomes_full_is_one_line_and_leaves_nothing(tmp_path, capsys, small_disk):
    arguments = ["--clip", str(LISA / "clip"), "--seg-token-id", "217"]
    with small_disk(10**6):
        assert main(["convert", str(LISA / "checkpoint"), str(tmp_path / "converted"), *arguments]) == 2
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ValueError, match=r"0\.0 GB are to be written but 0\.0 GB are free"):
        convert_lisa(LISA / "checkpoint", tmp_path / "converted")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "sam"},
            "`kind` is 'sam'; allowed are 'lisa', 'sesame', 'gsva', 'lisa-plus', 'read', 'glamm'",
        ),
        ({"conversation": "chat"}, "`conversation` is 'chat'; allowed are 'llava_v1', 'llava_llama_2'"),
        ({"dtype": "int8"}, "`dtype` is 'int8'; allowed are 'auto', 'float32'"),
        ({"seg_token_id": None}, "no tokenizer to tell the id of"),
        ({"seg_token_id": 500}, "`seg_token_id` is 500"),
        ({"kind": "glamm"}, "no SAM under the names of glamm"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        convert_lisa(LISA / "checkpoint", tmp_path / "converted", **options)


def test_existing_folder_is_not_touched(tmp_path, capsys):
    (tmp_path / "kept").touch()
    assert main(["convert", str(LISA / "checkpoint"), str(tmp_path)]) == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_command_line_says_what_was_left_out(tmp_path, capsys):
    arguments = ["--clip", str(LISA / "clip"), "--seg-token-id", "217", "--dtype", "float32"]
    assert main(["convert", str(LISA / "checkpoint"), str(tmp_path / "converted"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "kind:         lisa, 5.1 million parameters, float32" in out
    assert "3 tensors: computed from the configuration" in out
    assert "the folder holds the model only" in out


@pytest.mark.parametrize("legacy_names", [False, True])
def test_llava_converts_to_what_from_backbone_wraps(tmp_path, config_values, make_batch, legacy_names):
    backbone = LlavaConfig.from_dict(config_values["backbone_config"])
    torch.manual_seed(0)
    llava = LlavaForConditionalGeneration(backbone).eval()
    llava.save_pretrained(tmp_path / "llava", save_original_format=legacy_names)
    guide = config_values["guide_config"]
    vision = backbone.vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=guide, vision_config=vision, projection_dim=16))
    clip.save_pretrained(tmp_path / "clip")

    report = convert(tmp_path / "llava", tmp_path / "converted", clip=tmp_path / "clip")
    assert report["vision_tower"].startswith("from the checkpoint")
    converted = LiteLVLMForSegmentation.from_pretrained(tmp_path / "converted", num_retained_tokens=6)
    wrapped = LiteLVLMForConditionalGeneration.from_backbone(
        tmp_path / "llava", guide=tmp_path / "clip", num_retained_tokens=6
    )
    batch = make_batch()
    batch.pop("sam_pixel_values")
    with torch.no_grad():
        torch.testing.assert_close(converted(**batch).logits, wrapped(**batch).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change_weights", "message"),
    [
        (lambda weights: {"model": weights, "epoch": 1}, "holds 'model' of type dict; allowed are tensors by name"),
        (lambda weights: weights | {"step": 3}, "holds 'step' of type int; allowed are tensors by name"),
        (
            lambda weights: {f"base_model.model.{name}": value for name, value in weights.items()},
            "weights of LoRA .*merge them first",
        ),
        (lambda weights: weights | {"model.x.lora_A.weight": torch.ones(1)}, "weights of LoRA .*merge them first"),
    ],
)
@pytest.mark.parametrize("kind", [None, "lisa"])
def test_weights_that_are_nested_or_not_merged_are_refused(tmp_path, checkpoint, change_weights, message, kind):
    weights = {}
    for path in checkpoint.glob("*.bin"):
        weights |= torch.load(path, weights_only=True)
        path.unlink()
    (checkpoint / "pytorch_model.bin.index.json").unlink(missing_ok=True)
    torch.save(change_weights(weights), checkpoint / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        convert_lisa(checkpoint, tmp_path / "converted", kind=kind)


def test_a_clip_on_another_machine_is_asked_for(tmp_path, checkpoint):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vision_tower": "/mnt/nobody/clip"}))
    with pytest.raises(ValueError, match=r"'/mnt/nobody/clip', a folder of another machine; .* `--clip`"):
        convert_lisa(checkpoint, tmp_path / "converted", clip=None)
