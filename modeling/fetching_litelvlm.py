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
"""
Files of the web, within limits of time and size, and images of strangers. Transformers' own way, `httpx.get`, has no
limit of size, and one of time only for each packet.
"""

import io
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import monotonic
from typing import Any
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from PIL import Image, UnidentifiedImageError
from transformers.utils.hub import http_user_agent

MAX_BYTES = 100 * 2**20
MAX_SECONDS = 30.0

# Of images that strangers send to a server. Others of Pillow's formats start programs or are seldom tested
UNTRUSTED_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
UNTRUSTED_BYTES = 20 * 2**20
UNTRUSTED_PIXELS = 2**25

# Python calls them global, but each may stand for any IPv4 address or for one of the own site
_DISGUISES = [ip_network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "fec0::/10")]


class TooLargeError(ValueError):
    """More bytes or pixels than a limit allows."""


def open_untrusted(content: bytes) -> Image.Image:
    """
    The image that a stranger has sent, decoded only if it is within the limits above.

    Raises:
        TooLargeError: too many bytes or pixels.
        ValueError: another format, or damage.
    """
    if len(content) > UNTRUSTED_BYTES:
        raise TooLargeError(f"it has more than {UNTRUSTED_BYTES // 2**20} MiB, which is the limit")
    try:
        image = Image.open(io.BytesIO(content), formats=UNTRUSTED_FORMATS)
        if image.width * image.height > UNTRUSTED_PIXELS:
            size = f"{image.width} x {image.height}"
            raise TooLargeError(f"its {size} pixels are more than the limit, {UNTRUSTED_PIXELS}")
        image.load()
    except UnidentifiedImageError:  # whose message names an object in memory
        raise ValueError(f"cannot identify an image; allowed are {', '.join(UNTRUSTED_FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise TooLargeError(str(error)) from error
    except (SyntaxError, OSError) as error:
        raise ValueError(str(error)) from error
    return image


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    public_only: bool = False,
    hosts: Collection[str] | None = None,
) -> bytes:
    """
    The body of a URL of http or https, redirects followed.

    Args:
        url (`str`): of the file.
        max_bytes (`int`): the size of the body at most.
        max_seconds (`float`): the time from the first connection to the last byte at most, redirects included; the
            resolver's time is its own.
        public_only (`bool`): whether only public addresses are connected to, in every redirect too, and no proxy.
        hosts (*optional*): the names that are connected to, in every redirect too; by default any.

    Raises:
        OSError: it cannot be reached in time, or its status says that there is no such file.
        HTTPException: what answers does not speak HTTP.
        TooLargeError: too many bytes.
        ValueError: a URL of another kind, an address that is not public, or a host that is not allowed.
    """
    limits = _Limits(monotonic() + max_seconds, max_bytes, hosts)
    opener = OpenerDirector()
    for handler in (
        _Http(limits, public_only),
        _Https(limits, public_only),
        ProxyHandler({} if public_only else None),
        HTTPRedirectHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        UnknownHandler(),
    ):
        opener.add_handler(handler)
    # Some servers refuse the name that Python gives itself
    request = Request(url, headers={"User-Agent": http_user_agent()})
    with opener.open(request, timeout=max_seconds) as response:
        body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise TooLargeError(f"it has more than {max_bytes / 2**20:g} MiB, which is the limit")
    return body


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, and leads nowhere else."""
    disguised = any(address.version == network.version and address in network for network in _DISGUISES)
    return address.is_global and not address.is_multicast and not disguised


@dataclass
class _Limits:
    deadline: float
    max_bytes: int
    hosts: Collection[str] | None

    def connect(self, kind: type[HTTPConnection], host: str, timeout: float) -> HTTPConnection:
        """An urllib handler's connection, of which every wait ends at the deadline."""
        connection = kind(host, timeout=max(min(timeout, self.deadline - monotonic()), 1e-3))
        if self.hosts is not None and connection.host.lower() not in self.hosts:
            raise ValueError(f"{connection.host!r} is not an allowed host")
        connection.response_class = partial(_LimitedResponse, self)  # type: ignore[assignment]
        return connection


class _Http(HTTPHandler):
    def __init__(self, limits: _Limits, public_only: bool):
        super().__init__()
        self.connect = partial(limits.connect, _PublicConnection if public_only else HTTPConnection)

    def http_open(self, request: Request) -> Any:
        return self.do_open(self.connect, request)


class _Https(HTTPSHandler):
    def __init__(self, limits: _Limits, public_only: bool):
        super().__init__()
        self.connect = partial(limits.connect, _PublicTlsConnection if public_only else HTTPSConnection)

    def https_open(self, request: Request) -> Any:
        return self.do_open(self.connect, request)


class _PublicConnection(HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect_to_public(self.host, self.port, self.timeout)


class _PublicTlsConnection(HTTPSConnection):
    def connect(self) -> None:
        plain = _connect_to_public(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


def _connect_to_public(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connects to the address that was looked at: a name may lead to another one when it is resolved again."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not is_public(ip_address(address[0])):
            raise ValueError(f"{host!r} has no public address")
    family, kind, protocol, _, address = found[0]
    connected = socket.socket(family, kind, protocol)
    try:
        connected.settimeout(timeout)
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


class _LimitedResponse(HTTPResponse):
    """A response that is read until a deadline: a timeout of its socket alone starts anew with every byte."""

    def __init__(self, limits: _Limits, connected: socket.socket, *args: Any, **kwargs: Any):
        super().__init__(connected, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(self.fp, connected, limits.deadline))
        self.max_bytes = limits.max_bytes

    def read(self, amt: int | None = None) -> bytes:
        # urllib reads the whole body of a redirect
        return super().read(self.max_bytes + 1 if amt is None else amt)


class _TimedReader(io.RawIOBase):
    def __init__(self, source: io.BufferedReader, connected: socket.socket, deadline: float):
        self.source, self.connected, self.deadline = source, connected, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self.deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("it takes longer than the time limit")
        self.connected.settimeout(remaining)
        return self.source.raw.readinto(buffer)

    def close(self) -> None:
        self.source.close()
        super().close()


__all__ = ["MAX_BYTES", "MAX_SECONDS", "UNTRUSTED_BYTES", "TooLargeError", "fetch", "is_public", "open_untrusted"]
