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
"""What the device itself can do, and the least time that a stage could take on it (the roofline model)."""

from collections.abc import Callable
from typing import Any

import torch

from .timing import StageClock


def measure_device(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """
    The device's rates in this process, best of several tries.

    Returns:
        `dict[str, float]`: `copy_bytes_per_second` (bytes read and written by a copy of a buffer larger than any
        cache) and `matmul_flops_per_second` (a square matrix product in `dtype`).
    """
    large, side = (2**31, 8192) if device.type == "cuda" else (2**28, 1024)
    source = torch.empty(large // dtype.itemsize, dtype=dtype, device=device).fill_(1)
    target = torch.empty_like(source)
    copy_ms = _best_ms(lambda: target.copy_(source), device)
    return {
        "copy_bytes_per_second": 2 * large / copy_ms * 1000,
        "matmul_flops_per_second": matmul_rate(device, dtype, side),
    }


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int, num_runs: int = 10) -> float:
    """Floating-point operations per second of a product of square matrices of that side, best of several."""
    left, right = torch.randn(2, side, side, dtype=dtype, device=device).unbind()
    return 2 * side**3 / _best_ms(lambda: left @ right, device, num_runs) * 1000


def floor_ms(num_flops: float, num_bytes: float, rates: dict[str, float]) -> float:
    """
    The least time in milliseconds: every operation at the rate of a matrix product, or every byte at the rate of a
    copy, whichever takes longer.
    """
    seconds = num_flops / rates["matmul_flops_per_second"], num_bytes / rates["copy_bytes_per_second"]
    return 1000 * max(seconds)


def _best_ms(run: Callable[[], Any], device: torch.device, num_runs: int = 10) -> float:
    clock = StageClock(device)
    for _ in range(num_runs):
        with clock.stage("run"):
            run()
    return min(end - start for start, end in clock.spans()["run"])


__all__ = ["floor_ms", "matmul_rate", "measure_device"]
