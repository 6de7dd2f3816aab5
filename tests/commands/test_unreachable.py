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
"""A Hub that cannot be asked: one line, soon, that says what was given and how to mend it."""

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from litelvlm import hub
from litelvlm.annotation import Annotator
from litelvlm.commands.main import main
from litelvlm.tiny import EXAMPLE_IMAGE, TINY_MODEL

NAME = "nobody/none-at-all"
CHECKPOINT = "tests/golden/lisa_tiny/checkpoint"
COMMANDS = {
    "segment": ["segment", str(EXAMPLE_IMAGE), "the circle", "--model", NAME],
    "annotate": ["annotate", NAME, "OUTPUT/masks.parquet"],
    "convert": ["convert", NAME, "OUTPUT/made"],
    "convert --clip": ["convert", CHECKPOINT, "OUTPUT/made", "--clip", NAME],
    "convert --clip hf-hub:": ["convert", CHECKPOINT, "OUTPUT/made", "--clip", f"hf-hub:{NAME}"],
    "export": ["export", NAME, "OUTPUT/made"],
    "diagnose": ["diagnose", "--model", NAME, "--output", "OUTPUT"],
    "benchmark": ["benchmark", "--model", NAME],
}


@pytest.fixture
def closed_endpoint(monkeypatch):
    """An address of this machine where nothing listens."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def error_of(name, folder, capsys):
    assert main([part.replace("OUTPUT", str(folder)) for part in COMMANDS[name]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"'{NAME}' is no folder here" in error
    return error


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_a_hub_that_nobody_answers_at(name, closed_endpoint, tmp_path, capsys):
    error = error_of(name, tmp_path, capsys)
    assert "the Hub (http://127.0.0.1:9) cannot be asked" in error and "look at the network" in error


@pytest.mark.parametrize("name", ["segment", "convert"])
def test_a_command_names_the_offline_mode(name, offline, tmp_path, capsys):
    assert "HF_HUB_OFFLINE is set; unset it, or name a local folder" in error_of(name, tmp_path, capsys)


def test_an_annotator_names_a_hub_that_nobody_answers_at(closed_endpoint):
    with pytest.raises(ValueError, match=r"is no folder here, and the Hub .* cannot be asked"):
        Annotator(NAME)


def test_what_the_hub_does_not_show_may_need_a_token(monkeypatch):
    class Hub:
        def repo_info(self, *args, **kwargs):
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(hub, "HfApi", Hub)
    with pytest.raises(ValueError, match="the Hub does not show it; check the name, or set HF_TOKEN"):
        hub.check_reachable(NAME)


@pytest.mark.parametrize("place", ["./nosuch", "../nosuch", "nosuch/", "a/b/nosuch", "/nosuch", "~/nosuch"])
def test_the_hub_is_not_asked_for_what_is_written_as_a_folder(place, monkeypatch):
    monkeypatch.delattr(hub, "HfApi")
    with pytest.raises(ValueError, match=f"There is no folder '{place}'"):
        hub.check_reachable(place)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_a_folder_that_is_not_there(name, tmp_path, capsys):
    arguments = [part.replace("OUTPUT", str(tmp_path)).replace(NAME, "./nosuch") for part in COMMANDS[name]]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no folder './nosuch'" in error


def test_the_embedded_model_is_found_where_it_lies():
    hub.check_reachable(TINY_MODEL)
