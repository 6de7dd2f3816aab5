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
"""The service as it is started, by Ray Serve and in processes of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import httpx
import pytest

from litelvlm import TINY_MODEL
from litelvlm.commands.main import main
from litelvlm.data.masks import decode_segmentation
from litelvlm.serving.settings import Settings

from .conftest import GIVEN

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

# What Ray's own code is told by pydantic
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`litelvlm serve` in a process, and its address."""
    file = tmp_path_factory.mktemp("serve") / "token"
    file.write_text(TOKEN + "\n")
    command = [sys.executable, "-m", "litelvlm", "serve", "--port", "0", "--json", "--token-file", str(file)]
    environment = {**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(16), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, env=environment, text=True)
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def post(served):
    def send(**values):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(f"{served[1]}/v1/segment", json=GIVEN | values, headers=headers, timeout=120)

    return send


def masks_of(answer):
    return [
        decode_segmentation(mask["segmentation"], 512, 512)
        for result in answer.json()["results"]
        for mask in result["masks"]
    ]


def test_requests_at_once_get_the_answers_of_single_ones(served, post):
    assert served[1].startswith("http://127.0.0.1:")
    assert httpx.get(f"{served[1]}/readyz").json() == {"status": "ready"}
    assert httpx.post(f"{served[1]}/v1/segment", json=GIVEN).status_code == 401
    texts = ["the red circle", "the green star", "the blue square"]
    alone = {text: masks_of(post(texts=[text])) for text in texts}
    with ThreadPoolExecutor(8) as clients:
        bad = clients.submit(post, num_retained_tokens=257)
        answers = list(clients.map(lambda text: post(texts=[text]), texts * 3))
    assert bad.result().status_code == 422 and "from 1 to 256" in bad.result().json()["error"]["message"]
    for text, answer in zip(texts * 3, answers, strict=True):
        assert (masks_of(answer)[0] != alone[text][0]).mean() < 1e-3


def test_request_is_answered_though_the_replica_that_worked_at_it_is_killed(served, post):
    with ThreadPoolExecutor(4) as clients:
        answers = [clients.submit(post, answer=None, max_new_tokens=500, texts=["x" * 100] * 4) for _ in range(4)]
        sleep(1)
        (replica,) = (
            child
            for child in psutil.Process(served[0].pid).children(recursive=True)
            if "Segmenter" in " ".join(child.cmdline())
        )
        replica.kill()
        assert [answer.result().status_code for answer in answers] == [200] * 4


def test_what_was_accepted_is_answered_before_the_service_stops(served, post):
    with ThreadPoolExecutor(40) as clients:
        answers = [clients.submit(post) for _ in range(40)]
        while not any(answer.done() for answer in answers):
            sleep(0.05)
        served[0].send_signal(signal.SIGTERM)
        statuses = [answer.result().status_code for answer in answers]
    # All were sent before the signal; what the proxy had not handed on by then is told so
    assert set(statuses) <= {200, 503} and statuses.count(200) > 20
    assert served[0].wait(60) == 0
    assert "ServeController" not in served[0].stdout.read()  # that it ends is no failure to tell of


def test_service_is_refused_before_ray_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("Ray is started"))
    (tmp_path / "token").write_text("short")
    config = json.loads((TINY_MODEL / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"pruning_method": "x"}))
    for arguments, message in (
        (["--port", "70000"], "--port is 70000"),
        (["--token-file", str(tmp_path / "token")], "8 characters or more"),
        (["--token-file", str(tmp_path / "none")], "No such file"),
        (["--dtype", "float8"], "--dtype"),
        (["--batch-size", "0"], "`batch_size` is 0"),
        (["no/such/folder/x"], "There is no folder"),
        ([str(tmp_path)], "`pruning_method` is 'x'"),
    ):
        assert main(["serve", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_config_of_a_cluster_is_what_the_service_takes():
    yaml = pytest.importorskip("yaml")
    from ray.serve.schema import ServeDeploySchema

    for path in sorted((Path(__file__).parents[2] / "docs" / "serve").glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = yaml.safe_load(document["spec"]["serveConfigV2"]) if "spec" in document else document
        (application,) = ServeDeploySchema.model_validate(config).applications
        assert application.import_path == "litelvlm.serving.app:build"
        Settings.read(application.args)


IMPORTS = """
import sys
from litelvlm import TINY_MODEL
from litelvlm.commands.main import main

assert main(["segment", "example", "the red circle", "--answer", "It is [SEG].", "--json"]) == 0
found = {"ray", "fastapi", "starlette", "uvicorn", "prometheus_client", "cachetools"} & set(sys.modules)
assert not found, found
assert not any(name.startswith("litelvlm.serving") for name in sys.modules)
"""


def test_segment_imports_nothing_of_the_service():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
