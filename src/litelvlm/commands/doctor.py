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
"""`litelvlm doctor`: what a bug report should say of this machine, and what to install."""

import argparse
from typing import Any

from .flags import add_command


def add_parser(commands: Any) -> argparse.ArgumentParser:
    return add_command(
        commands,
        "doctor",
        help="tell what is installed and what works here",
        description="Prints versions, devices, what works and what to install, and tries the embedded model. Holds no "
        "paths, names of users or tokens, to be pasted into a bug report.",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..checkup import check_up

    return check_up()


def show(report: dict[str, Any]) -> None:
    print("versions:")
    for name, version in report["versions"].items():
        print(f"  {name}: {version or 'not installed'}")
    print("devices:")
    for device in report["devices"]:
        print("  " + ", ".join(f"{name} {value}" for name, value in describe(device).items()))
    print("what works:")
    for name, reason in report["features"].items():
        print(f"  {name}: {f'no, {reason}' if reason else 'yes'}")
    for device, reason in report["embedded_model"].items():
        print(f"  the embedded model on {device}: {f'no, {reason}' if reason else 'yes, its mask is right'}")
    print("to install:" if report["missing"] else "to install: nothing")
    for extra, libraries in report["missing"].items():
        package = f"litelvlm[{extra}]" if extra else "litelvlm"
        print(f'  pip install "{package}" (for {", ".join(libraries)})')


def describe(device: dict[str, Any]) -> dict[str, Any]:
    """A device's values in words."""
    words = device | {"bfloat16": "yes" if device["bfloat16"] else "no"}
    return words | ({"memory": f"{device['memory']} GiB"} if "memory" in device else {})


__all__ = ["add_parser", "run", "show"]
