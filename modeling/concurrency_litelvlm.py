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
"""A stream beside the current one, for work that nothing waits for yet."""

from collections.abc import Callable

import torch


class Concurrently:
    """
    Starts `function(tensor)` at once, on a GPU in a stream of its own, and gives its output when asked.

    Args:
        function: reads nothing but the tensor and what is constant.
        tensor (`torch.Tensor`): decides the device.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor):
        self._stream = None
        if tensor.device.type != "cuda":
            self._output = function(tensor)
            return
        self._stream = torch.cuda.Stream(tensor.device)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            self._output = function(tensor)
        # Keeps the allocator from reusing the memory before this stream has read it
        tensor.record_stream(self._stream)

    def result(self) -> torch.Tensor:
        """The function's output, for the current stream."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._output.device)
            current.wait_stream(self._stream)
            self._output.record_stream(current)
        return self._output


__all__ = ["Concurrently"]
