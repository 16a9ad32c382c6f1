"""Images from the web: fetched with limits, and never from a private network unless that is allowed."""

import http.server
import socket
import threading
import time

import pytest

from rasa.errors import ImageError
from rasa.labelling import addresses
from rasa.labelling.addresses import fetch
from rasa.labelling.reading import read_bytes
from rasa.labelling.sources import find_sources

PICTURE = b"\x89PNG, or so"


@pytest.fixture
def server():
    """A small web server on this machine; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
                return
            body = {"/a.png": PICTURE, "/long": b"x" * 2000, "/short": b"x"}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", "10" if self.path == "/short" else str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def private(monkeypatch):
    monkeypatch.setenv("RASA_PRIVATE_URLS", "1")


@pytest.mark.usefixtures("private")
def test_addresses_in_a_manifest_are_fetched(tmp_path, server):
    (tmp_path / "list.csv").write_text(f"url\n{server}/a.png\n{server}/to?/a.png\n{server}/none.png\n")
    first, second, missing = find_sources(tmp_path / "list.csv")
    assert read_bytes(first.locator) == read_bytes(second.locator) == PICTURE
    with pytest.raises(ImageError, match="answers 404"):
        read_bytes(missing.locator)


@pytest.mark.usefixtures("private")
def test_a_web_server_is_not_trusted(server, monkeypatch):
    monkeypatch.setattr(addresses, "MAX_BYTES", 1000)
    for path, reason in (
        ("/long", "more than 1000 bytes"),
        ("/short", "cannot be fetched|bytes early"),
        ("/to?/to?/to?/to?/to?/to?/a.png", "redirects more than 4 times"),
        ("/to?file:///etc/passwd", "no address of http or https"),
    ):
        with pytest.raises(ImageError, match=reason):
            fetch(server + path)


def test_private_addresses_are_not_asked(server):
    for url in (
        server + "/a.png",
        "http://169.254.169.254/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0.0.0.0/",
    ):
        with pytest.raises(ImageError, match="private address"):
            fetch(url)


def test_a_redirect_does_not_lead_into_a_private_network(server, monkeypatch):
    # The first address counts as public; the one it leads to does not.
    asked = []
    monkeypatch.setattr(addresses, "_is_public", lambda address: not asked.append(address) and len(asked) == 1)
    with pytest.raises(ImageError, match="private address 127"):
        fetch(f"{server}/to?/a.png")


@pytest.mark.usefixtures("private")
def test_a_server_that_drips_is_cut_off(monkeypatch):
    monkeypatch.setattr(addresses, "MAX_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
                    try:
                        connection.send(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(0.1)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        start = time.monotonic()
        with pytest.raises(ImageError, match="cannot be fetched"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/a.png")
        assert time.monotonic() - start < 5
        thread.join(timeout=5)
