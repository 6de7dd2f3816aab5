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
"""The image of a request: from base64, a data URL, a form's file or, from allowed hosts, a URL."""

import asyncio
from http.client import HTTPException
from typing import Any

from ..hub_cards.handler import MAX_FETCHING_SECONDS, read_image
from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES, TooLargeError, fetch
from .settings import RefusedError


async def load_image(source: Any, hosts: tuple[str, ...]) -> bytes:
    """
    The file, not decoded yet. Reading a URL does not hold up other requests.

    Raises:
        RefusedError: it is none of these, too large, or of a host that is not allowed.
    """

    def fetch_url(url: str) -> bytes:
        if not hosts:
            raise ValueError("this server fetches no URLs; send the image in base64")
        return fetch(url, max_bytes=UNTRUSTED_BYTES, max_seconds=MAX_FETCHING_SECONDS, public_only=True, hosts=hosts)

    try:
        return await asyncio.to_thread(read_image, source, fetch_url)
    except TooLargeError as error:
        raise RefusedError(413, f"The image is too large: {error}.") from error
    except HTTPException as error:
        raise RefusedError(422, f"The image's URL is not answered by HTTP ({type(error).__name__}).") from error
    except (ValueError, OSError) as error:
        raise RefusedError(422, f"The image is neither base64 nor an allowed URL: {error}") from error


__all__ = ["load_image"]
