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
"""Cards: what they claim has a source, their code runs, and those in the repository are those that are rendered."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from jinja2 import Environment, meta
from PIL import Image
from transformers import Sam2Config

from litelvlm import EXAMPLE_IMAGE, TINY_MODEL
from litelvlm.benchmark.presets import PRESETS
from litelvlm.commands.main import main
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.conversion.key_mappings import LLAVA_TYPES
from litelvlm.hub_cards import TARGETS, render_card
from litelvlm.hub_cards.cards import FOLDER, results_table

CONFIG = (TINY_MODEL / "config.json").read_text(encoding="utf-8")
TEXT_TARGETS = [target for target, values in TARGETS.items() if values["answers"] == "text"]


@pytest.mark.parametrize("target", TARGETS)
def test_card_in_the_repository_is_the_rendered_one(target):
    card = (FOLDER / f"{target}.md").read_text(encoding="utf-8")
    assert card == render_card(target), "run `python scripts/render_cards.py`"
    assert not re.search(r"\{\{|\{%|None\b(?!:)|TBD|TODO", card)


@pytest.mark.parametrize("target", TARGETS)
def test_target_has_every_value_that_the_template_names(target):
    template = Environment().parse((FOLDER / "card.md.jinja").read_text(encoding="utf-8"))
    rendered = {"card_data", "source", "name", "repository", "results", "tables", "giou"}
    of_others = {"tokens", "convert", "trained_on", "license_note", "citation"}  # of converted models
    of_scratch = {"summary", "limits"}
    other_kind = of_scratch if TARGETS[target]["base_model"] else of_others
    assert meta.find_undeclared_variables(template) - rendered - other_kind <= TARGETS[target].keys()


@pytest.mark.parametrize("target", TARGETS)
def test_metadata_is_complete(target):
    data = ModelCard(render_card(target)).data
    assert data.library_name == "transformers" and {"litelvlm", "custom_code"} <= set(data.tags)
    assert data.pipeline_tag == ("image-text-to-text" if target in TEXT_TARGETS else "image-segmentation")
    assert data.license == "other" or not data.license_name
    assert data.license != "other" or (data.license_name and data.license_link == base_page(target))
    if target == "litelvlm-tiny":
        assert data.base_model is None and data.license == "apache-2.0"
    else:
        model, clip = data.base_model
        assert data.base_model_relation == "merge" and clip.startswith(("openai/clip-", "google/siglip-"))
        assert ("CLIP's joint space" in render_card(target)) == (clip.startswith("openai/clip-"))
        convert = f"litelvlm convert {TARGETS[target]['convert']}\n"
        assert convert in render_card(target) and target in convert.split()
        assert "source" in TARGETS[target] or model in convert.split()


def base_page(target):
    values = TARGETS[target]
    return values["source"]["page"] if "source" in values else f"https://huggingface.co/{values['base_model'][0]}"


@pytest.mark.parametrize("target", TARGETS)
def test_every_figure_is_measured_here_or_the_papers(target):
    results = ModelCard(render_card(target)).data.eval_results or []
    if target == "litelvlm-tiny":
        lines = (FOLDER / "results" / "litelvlm-tiny.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["method"] in ("none", "litelvlm")]
        assert len(results) == 2 * len(rows) == 2 * 4 * (1 + 3)
        # Results are put together by split
        for metric in ("ciou", "giou"):
            figures = [r.metric_value for r in results if r.metric_type == metric]
            assert sorted(figures) == sorted(round(row[metric], 1) for row in rows)
        assert all("measured by this project" in r.metric_name and r.source_url is None for r in results)
    elif target == "litelvlm-glamm-refseg":
        assert len(results) == 8 * 4
        assert all("reported by the paper" in r.metric_name and "2605.13178" in r.source_url for r in results)
    else:
        assert not results and "This conversion has not been measured." in render_card(target)
        assert not re.search(r"\d %|\d times", render_card(target))


def test_new_results_change_table_and_metadata_of_the_card(tmp_path, monkeypatch):
    for name in ("targets.yaml", "card.md.jinja"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    row = {"split": "val", "patches": 256, "expressions": 7, "images": 3, "ciou": 61.24, "giou": 62.0}
    row |= {"ciou_low": 55.0, "ciou_high": 66.66}
    rows = [
        row | {"method": "none", "retained": 256, "layer_tokens": 256.0, "ciou": 80.0},
        row | {"method": "litelvlm", "retained": 85, "layer_tokens": 85.0},
        row | {"method": "fastv", "retained": 85, "layer_tokens": 170.5},
    ]
    curve = [["step", 100, 200], ["val", 18.0, 43.5]]
    results = {"parameters": 3.2, "training": ["One."], "curve": curve, "remarks": ["Two."]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "litelvlm-tiny.json").write_text(json.dumps(results))
    (tmp_path / "results" / "litelvlm-tiny.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("litelvlm.hub_cards.cards.FOLDER", tmp_path)
    card = render_card("litelvlm-tiny")
    for line in (
        "none | 256 | 80.0 [55.0, 66.7] | 100 %",
        "litelvlm | 85 | 61.2 [55.0, 66.7] | 77 %",
        "fastv | 170.5 | 61.2 [55.0, 66.7] | 77 %",
        "none | 62.0 | 100 %",
    ):
        assert f"| {line} |" in card
    assert [result.metric_value for result in ModelCard(card).data.eval_results] == [80.0, 62.0, 61.2, 62.0]


def test_readme_shows_figures_of_the_card():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = (FOLDER / "results" / "litelvlm-tiny.jsonl").read_text(encoding="utf-8").splitlines()
    shown = re.findall(r"^\| (none|litelvlm|random|[\w-]+) \|.* \d+ % \|$", readme, flags=re.MULTILINE)
    assert len(shown) == 4 and {"none", "litelvlm", "random"} < set(shown)
    table = results_table([row for row in map(json.loads, lines) if row["method"] in shown], "ciou")
    assert table in readme


@pytest.mark.parametrize("target", TARGETS)
def test_code_of_the_card_runs(target, request):
    """On the embedded model; for the card of a model without masks, on the embedded one without its mask decoder."""
    masks = target not in TEXT_TARGETS
    folder = TINY_MODEL if masks else request.getfixturevalue("saved_text_only")
    (code,) = re.findall(r"```python\n(.*?)```", render_card(target), flags=re.DOTALL)
    code = code.replace(f'"org/{target}"', repr(str(folder))).replace('"image.png"', repr(str(EXAMPLE_IMAGE)))
    scope = {}
    exec(code, scope)
    assert isinstance(scope["answer"], str)
    if masks:
        assert "[SEG]" in scope["answer"]
        assert scope["found"][0]["mask"].shape == Image.open(EXAMPLE_IMAGE).size[::-1]
    else:
        assert scope["model"].config.sam_config is None


def test_card_command_takes_the_target_from_the_folder(tmp_path, capsys):
    folder = tmp_path / "litelvlm-lisa-7b"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    assert main(["card", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(folder / name) for name in ("README.md", "handler.py", "requirements.txt")
    ]
    assert (folder / "README.md").read_text(encoding="utf-8") == render_card("litelvlm-lisa-7b")
    assert main(["card", str(folder)]) == 0  # nothing in them is another's
    assert main(["card", str(folder), "--target", "litelvlm-tiny", "--repo-id", "someone/tiny", "--force"]) == 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count('"someone/tiny"') == 2 and "org/" not in card


@pytest.mark.parametrize("name", ["README.md", "handler.py", "requirements.txt"])
def test_card_replaces_nothing_of_others_without_force(tmp_path, capsys, name):
    folder = tmp_path / "litelvlm-tiny"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    (folder / name).write_text("mine")
    assert main(["card", str(folder)]) == 2
    error = capsys.readouterr().err
    assert f"holds {name} already" in error and "--force" in error and error.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"config.json", name}
    assert (folder / name).read_text() == "mine"
    assert main(["card", str(folder), "--force"]) == 0
    assert (folder / name).read_text(encoding="utf-8") != "mine" and len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "config", "arguments", "message"),
    [
        ("mine", True, [], "There is no card for 'mine'; allowed are litelvlm-tiny, litelvlm-lisa-7b,"),
        ("litelvlm-tiny", False, [], "litelvlm-tiny' holds no config.json"),
        ("litelvlm-tiny", '{"model_type": "llava"}', [], "holds a model of type 'llava', and no LiteLVLM; name the"),
        ("litelvlm-tiny", "{}", [], "holds a model of type None, and no LiteLVLM"),
        ("litelvlm-tiny", "[]", [], "config.json' holds a JSON list in place of an object; name the folder"),
        ("litelvlm-tiny", True, ["--repo-id", "no repository"], "no repository"),
    ],
)
def test_card_that_cannot_be_written_is_one_line(tmp_path, capsys, name, config, arguments, message):
    (tmp_path / name).mkdir()
    if config:
        (tmp_path / name / "config.json").write_text(CONFIG if config is True else config)
    assert main(["card", str(tmp_path / name), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
    assert not (tmp_path / name / "README.md").exists()


def qwen(kind):
    return LiteLVLMConfig(
        backbone_config={"model_type": kind}, guide_config={"model_type": "clip"}, position_mode="original"
    )


def paligemma():
    guide = {"vision_config": {"hidden_size": 1152}, "text_config": {"hidden_size": 1152, "projection_size": 1152}}
    backbone = {"model_type": "paligemma", "text_config": {"model_type": "gemma"}}
    return LiteLVLMConfig(backbone_config=backbone, guide_config={"model_type": "siglip"} | guide)


def llava_next(language_model="mistral"):
    text = {"model_type": language_model}
    return LiteLVLMConfig(backbone_config={"model_type": "llava_next", "text_config": text})


# A configuration of each host, without weights
HOSTS = {
    "litelvlm-tiny": lambda: LiteLVLMConfig.from_pretrained(TINY_MODEL),
    "litelvlm-glamm-refseg": PRESETS["glamm-7b"].make_config,
    "litelvlm-llava-1.5-7b": PRESETS["llava-1.5-7b"].make_config,
    "litelvlm-llava-next-7b": llava_next,
    "litelvlm-llava-interleave-7b": PRESETS["llava-interleave-7b"].make_config,
    "litelvlm-llava-onevision-7b": PRESETS["llava-onevision-7b"].make_config,
    "litelvlm-paligemma-3b": paligemma,
    "litelvlm-paligemma2-3b": PRESETS["paligemma2-3b"].make_config,
    "litelvlm-qwen2-vl-7b": lambda: qwen("qwen2_vl"),
    "litelvlm-qwen2.5-vl-7b": lambda: qwen("qwen2_5_vl"),
}


def write_config(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def test_every_host_that_converts_has_a_card_but_vipllava():
    named = {values["host"]["backbone"] for values in TARGETS.values()}
    assert named == set(LLAVA_TYPES) - {"vipllava"}
    assert set(TEXT_TARGETS) < set(HOSTS)


@pytest.mark.parametrize("target", HOSTS)
def test_card_is_written_for_the_host_that_it_is_of_and_for_no_other(tmp_path, capsys, target):
    write_config(tmp_path / "folder", HOSTS[target]())
    assert main(["card", str(tmp_path / "folder"), "--target", target]) == 0
    capsys.readouterr()
    same = {name for name, values in TARGETS.items() if values["answers"] == "masks"}
    same = same if target in same else {target}
    for other in TARGETS.keys() - same:
        assert main(["card", str(tmp_path / "folder"), "--target", other, "--force"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"but {other} is the card of " in error
        assert target in error.partition("Those that fit: ")[2]
    assert (tmp_path / "folder" / "README.md").read_text(encoding="utf-8") == render_card(target)


@pytest.mark.parametrize(
    ("config", "target", "message"),
    [
        (lambda: llava_next("llama"), "litelvlm-llava-next-7b", "language_model llama"),
        (
            lambda: LiteLVLMConfig(backbone_config={"model_type": "vipllava"}),
            "litelvlm-llava-1.5-7b",
            "holds a model of backbone vipllava",
        ),
        (lambda: LiteLVLMConfig(sam_config=Sam2Config(), seg_token_id=5), "litelvlm-lisa-7b", "decoder sam2"),
    ],
)
def test_card_of_a_host_that_no_card_is_of_says_so(tmp_path, capsys, config, target, message):
    write_config(tmp_path / "folder", config())
    assert main(["card", str(tmp_path / "folder"), "--target", target]) == 2
    error = capsys.readouterr().err
    assert message in error and "No card fits it; write README.md yourself" in error
    assert not (tmp_path / "folder" / "README.md").exists()


def test_card_of_another_conversion_is_refused(tmp_path, capsys):
    """LISA's layout and GLaMM's become models of one kind, which the conversion's report tells apart."""
    folder = tmp_path / "litelvlm-lisa-7b"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    (folder / "conversion_report.json").write_text('{"kind": "glamm"}')
    assert main(["card", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "kind glamm" in error and "kind lisa" in error
    assert error.endswith("Those that fit: litelvlm-glamm-refseg; name one by `--target`.\n")
    assert main(["card", str(folder), "--target", "litelvlm-glamm-refseg"]) == 0


def test_card_of_a_qwen_says_where_its_guide_comes_from_and_what_it_refuses():
    card = render_card("litelvlm-qwen2.5-vl-7b")
    assert "of a CLIP beside it" in card and "several images" not in card
    assert "of its CLIP" in render_card("litelvlm-llava-next-7b")
