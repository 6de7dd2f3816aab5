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
"""Time per stage: CUDA events where there is a GPU, the host's clock elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class StageClock:
    """
    Notes when stages begin and end, without waiting for the device until the times are asked for.

    Args:
        device: where the stages run.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._spans: list[tuple[str, Any, Any]] = []
        self._handles: list[Any] = []
        self._wrapped: list[tuple[nn.Module, str]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block."""
        start = self._now()
        yield
        self._spans.append((name, start, self._now()))

    def watch(self, module: nn.Module, name: str) -> None:
        """Times every call of a module until `close`."""
        starts: list[Any] = []

        def begin(*_: Any) -> None:
            starts.append(self._now())

        def end(*_: Any) -> None:
            self._spans.append((name, starts.pop(), self._now()))

        self._handles.append(module.register_forward_pre_hook(begin))
        self._handles.append(module.register_forward_hook(end))

    def watch_method(self, module: nn.Module, method: str, name: str) -> None:
        """Times every call of a method of this one module until `close`."""
        timed = getattr(module, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return timed(*args, **kwargs)

        setattr(module, method, call)  # of the instance, before that of its class
        self._wrapped.append((module, method))

    def spans(self) -> dict[str, list[tuple[float, float]]]:
        """Per stage the begin and end of each of its calls, in milliseconds of one scale; then all is forgotten."""
        spans: dict[str, list[tuple[float, float]]] = {}
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        origin = self._spans[0][1]
        for name, start, end in self._spans:
            spans.setdefault(name, []).append((_milliseconds(origin, start), _milliseconds(origin, end)))
        self._spans.clear()
        return spans

    def close(self) -> None:
        """Leaves the modules as they were."""
        for handle in self._handles:
            handle.remove()
        for module, method in self._wrapped:
            delattr(module, method)

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _milliseconds(start: Any, end: Any) -> float:
    return 1000 * (end - start) if isinstance(start, float) else start.elapsed_time(end)


__all__ = ["StageClock"]
