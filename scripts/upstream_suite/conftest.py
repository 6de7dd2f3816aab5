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
"""Fails the run where our classes fail, or skip without a reason of ours, what LLaVA passes in the same place."""

from collections import defaultdict

import pytest

OURS = "LiteLVLM: "

failed: dict[str, set[str]] = defaultdict(set)
skipped: dict[str, dict[str, str]] = defaultdict(dict)


def control(class_name):
    """The class of LLaVA that stands where ours does."""
    return "LlavaModelTest" if class_name.startswith("LiteLVLMModel") else "LlavaForConditionalGenerationTest"


def pytest_runtest_logreport(report):
    _, class_name, name = report.nodeid.split("::")
    if report.failed:
        failed[class_name].add(name)
    elif report.skipped and isinstance(report.longrepr, tuple):
        skipped[class_name][name] = report.longrepr[2].removeprefix("Skipped: ")


def pytest_sessionfinish(session):
    """The verdict in place of pytest's: LLaVA's own failures are upstream's business."""
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED if list(_complaints()) else pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("compared with LLaVA")
    for class_name in sorted(name for name in failed if name.startswith("Llava")):
        for name in sorted(failed[class_name]):
            terminalreporter.line(f"LLaVA fails: {class_name}::{name}")
    for line in _complaints():
        terminalreporter.line(line, red=True)
    for class_name, tests in sorted(skipped.items()):
        for name, reason in sorted(tests.items()):
            if reason.startswith(OURS):
                terminalreporter.line(f"skipped: {class_name}::{name}: {reason.removeprefix(OURS)}")


def _complaints():
    for class_name in sorted(name for name in failed.keys() | skipped.keys() if name.startswith("LiteLVLM")):
        for name in sorted(failed[class_name] - failed[control(class_name)]):
            yield f"FAILED, but not by LLaVA: {class_name}::{name}"
        # Upstream's tests of processors run on ours alone, and skip what it has no part for
        if class_name != "LiteLVLMProcessorTest" and control(class_name) in skipped:
            for name, reason in sorted(skipped[class_name].items()):
                if name not in skipped[control(class_name)] and not reason.startswith(OURS):
                    yield f"SKIPPED, but not by LLaVA: {class_name}::{name}: {reason}"
