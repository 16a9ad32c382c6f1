"""Images from the web: http and https, with limits, and no way into a private network.

Every address that a name resolves to is checked before a connection is made to that very address, also after each
redirect; so no list of images can make this machine ask a router, a cloud's metadata service or itself. Proxies
of the environment are not used. ``RASA_PRIVATE_URLS=1`` lets private addresses through, for an image server of
one's own.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, urljoin, urlsplit

from rasa._version import __version__
from rasa.errors import ImageError

MAX_BYTES = 256 * 2**20
TIMEOUT_S = 20.0  # for a connection, and for each read
MAX_SECONDS = 120.0  # for a whole image
_MAX_REDIRECTS = 4
_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}


def fetch(url: str) -> bytes:
    """Download one image of at most 256 MiB, in at most two minutes.

    Raises:
        ImageError: If the address is of another kind, private, or gives no answer of status 200.
    """
    deadline = time.monotonic() + MAX_SECONDS
    at = url
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = _ask(at, deadline)
            if isinstance(answer, bytes):
                return answer
            at = urljoin(at, answer)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{url!r} cannot be fetched: {type(error).__name__}: {error}") from error
    raise ImageError(f"{url!r} redirects more than {_MAX_REDIRECTS} times")


def is_address(text: str) -> bool:
    """Whether ``text`` is meant as an address of the web."""
    return text[:8].lower().startswith(("http://", "https://"))


def _ask(url: str, deadline: float) -> bytes | str:
    """The bytes, or where to ask instead."""
    parts = urlsplit(url)
    connection = _connect(url, parts)
    # Each byte of an answer may come just in time for the socket's own limit.
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), connection.sock.shutdown, [socket.SHUT_RDWR])
    watchdog.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        agent = {"User-Agent": f"rasa/{__version__}", "Accept-Encoding": "identity"}
        connection.request("GET", target, headers=agent)
        response = connection.getresponse()
        if response.status in _REDIRECTS and (there := response.getheader("Location")):
            return there
        if response.status != 200:
            raise ImageError(f"{url!r} answers {response.status} {response.reason}")
        return _body(url, response, deadline)
    finally:
        watchdog.cancel()
        connection.close()


def _body(url: str, response: http.client.HTTPResponse, deadline: float) -> bytes:
    data = bytearray()
    while chunk := response.read1(2**16):
        data += chunk
        if len(data) > MAX_BYTES:
            raise ImageError(f"{url!r} has more than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise ImageError(f"{url!r} takes longer than {MAX_SECONDS:.0f} s")
    if response.length:  # what was announced and did not come
        raise ImageError(f"{url!r} ended {response.length} bytes early")
    return bytes(data)


def _connect(url: str, parts: SplitResult) -> http.client.HTTPConnection:
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ImageError(f"{url!r} is no address of http or https; only those are fetched")
    port = parts.port or _PORTS[parts.scheme]
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
    plain = _checked_socket(url, parts.hostname, port)
    if parts.scheme == "https":
        try:
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
        except BaseException:
            plain.close()
            raise
    else:
        connection.sock = plain
    return connection


def _checked_socket(url: str, host: str, port: int) -> socket.socket:
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        # A name may have public and private addresses; one private one is reason enough.
        if not _is_public(str(address[0])) and os.environ.get("RASA_PRIVATE_URLS") != "1":
            raise ImageError(
                f"{url!r} leads to the private address {address[0]}; set RASA_PRIVATE_URLS=1 to allow that"
            )
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    raise failure or OSError("the name has no address")


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (inner is None or inner.is_global)
