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
Deploys `docs/serve/config.yaml`, with the embedded model, on a cluster of two nodes on this machine, kills one of them
under load, and looks at every answer.

    python scripts/lose_node.py --requests 120
"""

import argparse
import base64
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import yaml

CONFIG = Path(__file__).parents[1] / "docs" / "serve" / "config.yaml"

# Before Ray is imported, which reads them then
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}

from ray.cluster_utils import Cluster  # noqa: E402

from litelvlm import EXAMPLE_IMAGE  # noqa: E402
from litelvlm.commands.demo import find_port  # noqa: E402
from litelvlm.data.masks import decode_segmentation  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    dashboard, port = find_port("127.0.0.1", 0), find_port("127.0.0.1", 0)
    head = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": dashboard}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        other = cluster.add_node(num_cpus=1)
        deploy(f"http://127.0.0.1:{dashboard}", port)
        url = f"http://127.0.0.1:{port}"
        wait_for_replicas(f"http://127.0.0.1:{dashboard}", 4)
        body = {"image": base64.b64encode(EXAMPLE_IMAGE.read_bytes()).decode(), "texts": ["the red circle"]}
        expected = httpx.post(f"{url}/v1/segment", json=body, timeout=60).json()["results"]

        def ask(_: int) -> str:
            answer = httpx.post(f"{url}/v1/segment", json=body, timeout=180)
            if answer.status_code != 200:
                return f"{answer.status_code} {answer.text[:80]}"
            return "200" if is_same(answer.json()["results"], expected) else "another answer"

        with ThreadPoolExecutor(options.clients) as clients:
            answers = [clients.submit(ask, number) for number in range(options.requests)]
            while sum(answer.done() for answer in answers) < options.requests // 4:
                time.sleep(0.1)
            before = Counter(answer.result() for answer in answers if answer.done())
            print(f"answers before a node is killed: {dict(before)}", flush=True)
            cluster.remove_node(other, allow_graceful=False)
            print(f"answers in all: {dict(Counter(answer.result() for answer in answers))}")
    finally:
        cluster.shutdown()


def is_same(results: list[Any], expected: list[Any]) -> bool:
    """But for 0.1 % of the pixels, which padding within a batch may move."""
    masks = [decode_segmentation(each[0]["masks"][0]["segmentation"], 512, 512) for each in (results, expected)]
    return results[0]["answer"] == expected[0]["answer"] and (masks[0] != masks[1]).mean() < 1e-3


def deploy(dashboard: str, port: int) -> None:
    """As on a real cluster, but for what one machine cannot have: two proxies on one port, and GPUs."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (application,) = config["applications"]
    application["args"] |= {"model": None, "num_gpus_per_replica": 0}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [str(Path(sys.executable).with_name("serve")), "deploy", file.name, "--address", dashboard]
        subprocess.run(command, check=True)


def wait_for_replicas(dashboard: str, number: int) -> None:
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    for _ in range(300):
        report = httpx.get(f"{dashboard}/api/serve/applications/", headers=headers, timeout=30).json()
        application = report["applications"].get("litelvlm", {})
        replicas = [
            replica
            for deployment in application.get("deployments", {}).values()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        ]
        if len(replicas) == number:
            print(f"replicas run on {len({replica['node_id'] for replica in replicas})} nodes", flush=True)
            return
        time.sleep(1)
    raise SystemExit(f"The application does not run: {application.get('message') or application.get('status')}")


if __name__ == "__main__":
    main()
