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
"""`litelvlm demo`: a page in the browser to try a model out."""

import argparse
import json
import os
import signal
import socket
import tempfile
import threading
from typing import Any

from ..extras import needing
from .flags import add_command, add_model

EXAMPLES = ("the red circle", "the green star")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "demo",
        help="try a model in the browser",
        description="Serves a page: an image and a text in; the tokens kept, the mask and the time per step out. Stop "
        "it by Ctrl-C.",
    )
    add_model(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is every network (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 takes any that is free (default: 7860)")
    parser.add_argument("--share", action="store_true", help="let Gradio make a public link to the page, for a week")
    return parser


def run(options: argparse.Namespace) -> None:
    """Serves until Ctrl-C. Raises ValueError or OSError for what the user can mend."""
    port = find_port(options.host, options.port)
    # Before Gradio is imported, which reads it then
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with needing("demo"):
        from ..hub_cards import app
    from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES
    from ..outputs import to_coco
    from ..tiny import EXAMPLE_IMAGE
    from .loading import load_model, pick_device

    model, processor = load_model(options, pick_device(options.device))
    # What people upload is gone when the server is, also where a service is stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="litelvlm-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = app.build(model, processor, [[str(EXAMPLE_IMAGE), text] for text in EXAMPLES], to_coco)
        try:
            _, url, public = app.launch(
                page,
                UNTRUSTED_BYTES,
                server_name=options.host,
                server_port=port,
                share=options.share,
                quiet=True,
                inbrowser=False,
                prevent_thread_lock=True,
            )
            if options.share and public is None:
                raise OSError("Gradio could not make a public link; look at the network, or leave --share out.")
            report = {"url": url} | ({"public_url": public} if options.share else {})
            print(json.dumps(report), flush=True) if options.json else show(report)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def find_port(host: str, port: int) -> int:
    """The port, or for 0 any that is free; a ValueError says why it cannot be listened on."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; allowed are 0 to 65535.")
    try:
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise ValueError(
            f"{host}:{port} cannot be listened on ({error.strerror}); name another --host or --port."
        ) from error


def show(report: dict[str, str]) -> None:
    for name, url in report.items():
        print(f"{name.replace('_', ' ')}: {url}", flush=True)


__all__ = ["add_parser", "run", "show"]
