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
"""What a service is told as it starts, and how a request is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES

MAX_TEXTS = 16
"""Of a request, each asked about its image."""
MAX_IMAGES = 8
"""Of a chat."""
MAX_BODY_BYTES = UNTRUSTED_BYTES * 4 // 3 + 2**20
"""Of a request: an image in base64, or several that are smaller, and what stands around it."""


@dataclass(frozen=True)
class Settings:
    """
    Args:
        model (`str`, *optional*): folder or Hub id; by default the embedded model.
        dtype (`str`): of the weights, as `litelvlm segment --dtype` takes it.
        device (`str`, *optional*): by default what a replica is given.
        batch_size (`int`): requests, and texts, that the model sees at once.
        batch_wait_milliseconds (`float`): how long a request waits for others to share its batch.
        max_seconds (`float`): from the last byte of a request to its answer.
        max_waiting (`int`): requests that wait for the model; more are refused.
        cache_mebibytes (`int`): images' states that each replica keeps for further questions.
        allowed_hosts (`tuple[str, ...]`): from which images are fetched by URL.
        token_file (`str`, *optional*): holds the token that each request must bear.
        replicas (`int`): of the model.
        max_replicas (`int`, *optional*): up to which Ray Serve starts more while requests wait.
        num_cpus_per_replica (`float`): that Ray reserves, and threads of PyTorch.
        num_gpus_per_replica (`float`): that Ray reserves.

    Raises:
        ValueError: a number that makes no sense.
    """

    model: str | None = None
    dtype: str = "auto"
    device: str | None = None
    batch_size: int = 8
    batch_wait_milliseconds: float = 10.0
    max_seconds: float = 60.0
    max_waiting: int = 64
    cache_mebibytes: int = 1024
    allowed_hosts: tuple[str, ...] = ()
    token_file: str | None = None
    replicas: int = 1
    max_replicas: int | None = None
    num_cpus_per_replica: float = 1.0
    num_gpus_per_replica: float = 0.0

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "batch_wait_milliseconds": 0, "max_waiting": 1, "cache_mebibytes": 0, "replicas": 1}
        least |= {"num_cpus_per_replica": 0, "num_gpus_per_replica": 0}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"`{name}` is {getattr(self, name)}; allowed are numbers of at least {low}.")
        if not self.max_seconds > 0:
            raise ValueError(f"`max_seconds` is {self.max_seconds}; allowed are numbers above 0.")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"`max_replicas` is {self.max_replicas}, but `replicas` is {self.replicas} already.")

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> "Settings":
        """Settings from a Serve config's `args`; a ValueError names what is unknown."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(arguments) - set(known)):
            raise ValueError(f"Unknown settings {', '.join(unknown)}; allowed are {', '.join(known)}.")
        hosts = arguments.get("allowed_hosts", ())
        return cls(**{**arguments, "allowed_hosts": tuple(hosts)})


class RefusedError(Exception):
    """A request that is not answered: the status of HTTP, and a message for who asked."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)
        self.status, self.message = status, message


__all__ = ["MAX_BODY_BYTES", "MAX_IMAGES", "MAX_TEXTS", "RefusedError", "Settings"]
