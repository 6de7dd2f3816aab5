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
"""What a report says of the machine and the libraries that its figures come from."""

import os
import platform
import sys
from typing import Any

import torch
import transformers


def describe_device(device: torch.device) -> dict[str, Any]:
    """Type and name of the device; of a CPU its cores and threads too."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    return {
        "type": device.type,
        "name": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch and Transformers."""
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def peak_resident_bytes() -> int | None:
    """Most memory that this process has held so far; `None` where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


__all__ = ["describe_device", "peak_resident_bytes", "versions"]
