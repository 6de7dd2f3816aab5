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
"""`litelvlm serve`: a model behind HTTP, by Ray Serve."""

import argparse
import json
import os
import signal
import threading
from typing import Any

from ..extras import needing
from .flags import add_command, add_device, add_dtype, prepare_ray

NAME = "litelvlm"
SHARED = ("model", "dtype", "device", "batch_size", "max_seconds", "max_waiting", "token_file", "replicas")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "serve",
        help="answer requests over HTTP",
        description="Serves POST /v1/segment, POST /v1/chat/completions (as OpenAI's), /healthz, /readyz, /metrics and"
        " /openapi.json, in batches. Stop it by Ctrl-C: what was accepted is answered first. If the variable "
        "LITELVLM_TOKEN is set, requests must bear the token that it holds.",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="folder or Hub id (default: the embedded model)")
    add_dtype(parser, "as saved", runs=False)
    add_device(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is every network (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default: 8000)")
    parser.add_argument("--token-file", metavar="FILE", help="holds the token that requests must bear")
    parser.add_argument(
        "--allow-urls",
        nargs="+",
        default=[],
        metavar="HOST",
        help="fetch images from these hosts, at public addresses only (default: images by URL are refused)",
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="B", help="requests at a time (default: 8)")
    parser.add_argument("--max-waiting", type=int, default=64, metavar="N", help="further ones get 429 (default: 64)")
    parser.add_argument(
        "--max-seconds", type=float, default=60.0, metavar="S", help="for an answer, or 504 (default: 60)"
    )
    parser.add_argument(
        "--image-cache",
        type=int,
        default=1024,
        metavar="MIB",
        help="what a replica keeps of images for further questions (default: 1024)",
    )
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="of the model (default: 1)")
    parser.add_argument("--max-replicas", type=int, metavar="N", help="start up to so many while requests wait")
    parser.add_argument(
        "--num-gpus-per-replica", type=float, metavar="N", help="may be a part of one (default: 1 where there is one)"
    )
    return parser


def run(options: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises ValueError or OSError for what the user can mend."""
    prepare_ray()
    with needing("serve"):
        import ray
        from ray import serve
    from ..configuration.configuration_litelvlm import LiteLVLMConfig
    from ..hub import check_reachable
    from ..serving.app import build, find_token
    from ..serving.settings import Settings
    from ..tiny import TINY_MODEL
    from .demo import find_port
    from .loading import pick_device, pick_dtype

    port = find_port(options.host, options.port)
    pick_dtype(options.dtype)
    name = str(options.model or TINY_MODEL)
    check_reachable(name)
    LiteLVLMConfig.from_pretrained(name)  # here, as what a replica says is long
    has_gpu = pick_device(options.device).type == "cuda"
    most = options.max_replicas or options.replicas
    num_gpus = options.num_gpus_per_replica
    arguments = {name: getattr(options, name) for name in (*SHARED, "max_replicas")}
    arguments |= {"allowed_hosts": options.allow_urls, "cache_mebibytes": options.image_cache}
    arguments["num_gpus_per_replica"] = float(has_gpu) if num_gpus is None else num_gpus
    # Ray gives PyTorch as many threads as it reserves cores
    arguments["num_cpus_per_replica"] = max(1, (os.cpu_count() or 1) // max(1, most))
    find_token(Settings.read(arguments))

    ray.init(address="local", include_dashboard=False, log_to_driver=options.debug, logging_level="error")
    # After Ray, which has handlers of its own
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        serve.start(http_options={"host": options.host, "port": port})
        serve.run(build(arguments), name=NAME)
        report = {"url": f"http://{options.host}:{port}"}
        print(json.dumps(report), flush=True) if options.json else show(report)
        stopped.wait()
        serve.get_app_handle(NAME).drain.remote().result(timeout_s=2 * options.max_seconds)
        serve.delete(NAME)
    finally:
        # Ends Serve too, whose own shutdown prints that its actors were lost
        ray.shutdown()


def show(report: dict[str, str]) -> None:
    print(f"url: {report['url']}", flush=True)


__all__ = ["add_parser", "run", "show"]
