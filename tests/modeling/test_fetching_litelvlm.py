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
"""Nobody who answers a request decides how long it takes, how much it brings, or where it goes."""

import itertools
import socket
from time import monotonic

import pytest

from litelvlm.modeling import fetching_litelvlm as fetching
from litelvlm.modeling.fetching_litelvlm import fetch

OK = b"HTTP/1.1 200 OK\r\n"


def redirect(url):
    return f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


def resolve(monkeypatch, **addresses):
    """Replaces the resolver by one that knows these hosts of `.test` alone; gives the list of what it was asked."""
    asked = []

    def getaddrinfo(host, port, *arguments, **options):
        asked.append(host)
        found = addresses[host.removesuffix(".test")]
        family = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(family[6 if ":" in a else 4], socket.SOCK_STREAM, 6, "", (a, port)) for a in found.split()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_body_and_redirects_arrive(serve_bytes):
    image = serve_bytes(OK, b"Content-Length: 3\r\n\r\n", b"abc")
    assert fetch(f"http://{serve_bytes(redirect(f'http://{image}/x'))}/y") == b"abc"
    assert [request.split(" ")[1] for request in serve_bytes.requests] == ["/y", "/x"]


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"\r\n", itertools.repeat(b"a")),
        (OK, itertools.repeat(b"X-Header: more\r\n")),
        (OK, b"X-Header: ", itertools.repeat(b"a")),
        (itertools.repeat(b"a"),),
    ],
    ids=["body", "headers", "one header", "no HTTP"],
)
def test_what_drips_without_end_is_left_at_the_time_limit(serve_bytes, parts):
    address, started = serve_bytes(*parts, pause=0.05), monotonic()
    with pytest.raises(OSError, match="time"):
        fetch(f"http://{address}/", max_seconds=0.4)
    assert monotonic() - started < 1.5


def test_time_limit_is_one_for_all_redirects(serve_bytes):
    url = "/again"
    address, started = serve_bytes(b"HTTP", redirect(url).removeprefix(b"HTTP"), pause=0.2), monotonic()
    with pytest.raises(OSError, match="time"):
        fetch(f"http://{address}/", max_seconds=0.5)
    assert monotonic() - started < 1.5 and 1 < len(serve_bytes.requests) < 5


@pytest.mark.parametrize(
    "header", [b"", b"Content-Length: 99999999999999\r\n", b"Transfer-Encoding: chunked\r\n"], ids=str
)
@pytest.mark.parametrize("status", [OK, b"HTTP/1.1 302 Found\r\nLocation: /\r\n"], ids=["body", "redirect"])
def test_endless_body_is_left_at_the_size_limit(serve_bytes, header, status):
    block = b"10000\r\n" + bytes(2**16) + b"\r\n" if b"chunked" in header else bytes(2**16)
    address = serve_bytes(status, header + b"\r\n", itertools.repeat(block))
    with pytest.raises((ValueError, OSError), match=r"more than 2 MiB|infinite loop"):
        fetch(f"http://{address}/", max_bytes=2**21, max_seconds=5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", "404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nabc", "503"),
        (redirect("ftp://127.0.0.1/x"), "unknown url type: ftp"),
        (redirect("file:///etc/hostname"), "file"),
    ],
)
def test_status_and_kind_of_url_are_looked_at(serve_bytes, answer, message):
    with pytest.raises(OSError, match=message):
        fetch(f"http://{serve_bytes(answer)}/")


@pytest.mark.parametrize(
    "addresses",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "fec0::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "8.8.8.8 10.0.0.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_address_that_is_not_public_is_never_connected_to(monkeypatch, addresses, scheme):
    def refuse(*arguments):
        raise AssertionError("a connection was tried")

    resolve(monkeypatch, inside=addresses)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match=r"'inside\.test' has no public address"):
        fetch(f"{scheme}://inside.test/", public_only=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "127.1", "0x7f.0.0.1", "localhost"])
def test_spellings_of_loopback_are_seen_through(serve_bytes, host):
    port = serve_bytes(OK, b"\r\nabc").partition(":")[2]
    with pytest.raises(ValueError, match="has no public address"):
        fetch(f"http://{host}:{port}/", public_only=True)
    assert serve_bytes.requests == []


def test_address_that_was_looked_at_is_the_one_that_is_used(serve_bytes, monkeypatch):
    port = serve_bytes(OK, b"Content-Length: 3\r\n\r\nabc").partition(":")[2]
    asked = resolve(monkeypatch, images="127.0.0.1")
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    assert fetch(f"http://images.test:{port}/", public_only=True) == b"abc"
    assert asked == ["images.test"] and f"Host: images.test:{port}" in serve_bytes.requests[0]


def test_every_redirect_is_looked_at(serve_bytes, monkeypatch):
    secret = serve_bytes(OK, b"\r\nsecret").partition(":")[2]
    port = serve_bytes(redirect(f"http://inside.test:{secret}/")).partition(":")[2]
    resolve(monkeypatch, outside="127.0.0.1", inside="127.0.0.2")
    monkeypatch.setattr(fetching, "is_public", lambda address: str(address) == "127.0.0.1")
    with pytest.raises(ValueError, match=r"'inside\.test' has no public address"):
        fetch(f"http://outside.test:{port}/", public_only=True)
    assert len(serve_bytes.requests) == 1


def test_only_named_hosts_are_connected_to_in_redirects_too(serve_bytes, monkeypatch):
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    asked = resolve(monkeypatch, images="127.0.0.1", IMAGES="127.0.0.1", other="127.0.0.1")
    image = serve_bytes(OK, b"Content-Length: 3\r\n\r\n", b"abc").partition(":")[2]
    assert fetch(f"http://IMAGES.test:{image}/", hosts=["images.test"], public_only=True) == b"abc"
    elsewhere = serve_bytes(redirect(f"http://other.test:{image}/")).partition(":")[2]
    for url in (
        f"http://other.test:{image}/",
        f"http://images.test@other.test:{image}/",
        f"https://other.test:{image}/",
        f"http://images.test:{elsewhere}/",
        f"http://other.test:{image}/images.test",
    ):
        with pytest.raises(ValueError, match=r"other\.test' is not an allowed host"):
            fetch(url, hosts=["images.test"], public_only=True)
    assert "other.test" not in asked
