"""Files from the model hub, or from any address: fetched over HTTP with huggingface_hub's client, and resumed.

huggingface_hub knows the endpoint, the user's token, its own cache and what the hub's errors mean. The bytes are
written here rather than by its ``hf_hub_download``, which since version 2 deletes what it has when it gives up:
here they stay, and the next fetch goes on where the last one stopped, be it cut, killed or out of space.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from rasa._sources import Report, Wanted, check_name, offline_switch
from rasa.errors import ConfigError, DependencyError, WeightsError

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_CHUNK_BYTES = 1 << 18
_TRIES = 5  # in a row without a new byte, once a first one has come
_PAUSE_SECONDS = 1.0
_BUSY = {408, 429, 500, 502, 503, 504}  # statuses that may pass, as huggingface_hub sees them


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file in a repository of the model hub.

    Attributes:
        repository: ``owner/name``.
        revision: A commit, or a branch where nobody noted the commit; the sha256 of the file holds in either case.
        filename: Path of the file in the repository.
        gated: Whether the hub asks users to log in and accept a licence first.

    Raises:
        ConfigError: If a name is malformed.
    """

    kind: ClassVar[str] = "hub"
    scratch: ClassVar[int] = 0  # the file is written once, where it stays

    repository: str
    revision: str
    filename: str
    gated: bool = False

    def __post_init__(self) -> None:
        for name in (self.repository, self.revision, self.filename):
            if not _HUB_NAME.fullmatch(name):
                raise ConfigError(f"malformed name {name!r} of a hub file; use letters, digits, '.', '_', '-' and '/'")

    @property
    def file(self) -> str:
        """Name of the weight file, without its folders."""
        return PurePosixPath(self.filename).name

    @property
    def place(self) -> str:
        """Where the file is, for a table."""
        return f"{self.repository}@{self.revision}: {self.filename}"

    def deliver(self, part: Path, wanted: Wanted, report: Report) -> None:
        """Bring the file to ``part``, from huggingface_hub's cache, where a hard link will do, or from the hub.

        Raises:
            WeightsError: If it cannot be had; what has come stays in ``part``.
            DependencyError: If huggingface_hub is not installed.
        """
        hub = _import_hub(self)
        if not part.exists() and self._from_cache(hub, part, wanted):
            return
        _refuse_offline(self)
        address = hub.hf_hub_url(self.repository, self.filename, revision=self.revision, endpoint=self._endpoint())
        _Download(hub, self, address, wanted).run(part, report, hub.utils.build_hf_headers())

    def by_hand(self) -> str:
        """How a user gets the file without this program."""
        page = f"{self._endpoint() or 'https://huggingface.co'}/{self.repository}"
        return f"download {self.filename} from {page} {_AND_PUT}"

    def refused(self, code: str | None) -> str:
        """What a 401 or 403 means, and what to do about it."""
        page = f"{self._endpoint() or 'https://huggingface.co'}/{self.repository}"
        login = "log in with `hf auth login` or set HF_TOKEN"
        if self.gated or code == "GatedRepo":
            return f"{self.repository} is gated: accept its licence at {page}, then {login}, and fetch again"
        return f"the hub has no repository {self.repository}, or shows it to its members only: check {page} and {login}"

    def _from_cache(self, hub: Any, part: Path, wanted: Wanted) -> bool:
        found = hub.try_to_load_from_cache(self.repository, self.filename, revision=self.revision)
        if not isinstance(found, str):
            return False
        blob = Path(found).resolve()  # the cache shows blobs through symbolic links
        with blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted.sha256:
                return False
        try:
            part.hardlink_to(blob)
        except OSError:  # another file system, or one without hard links
            with contextlib.suppress(OSError):
                part.unlink()
            shutil.copyfile(blob, part)
        return True

    def _endpoint(self) -> str | None:
        return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file that its authors publish under a plain address.

    Attributes:
        url: ``https://host/path``; the last part of the path is the file's name.

    Raises:
        ConfigError: If the address is malformed.
    """

    kind: ClassVar[str] = "url"
    scratch: ClassVar[int] = 0

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
            raise ConfigError(f"malformed address {self.url!r} of a file; use https://host/path")
        check_name("file", self.file)

    @property
    def file(self) -> str:
        """Name of the weight file, the end of its address."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def place(self) -> str:
        """Where the file is, for a table."""
        return self.url

    def deliver(self, part: Path, wanted: Wanted, report: Report) -> None:
        """Bring the file to ``part``.

        Raises:
            WeightsError: If it cannot be had; what has come stays in ``part``.
            DependencyError: If huggingface_hub, whose client is used, is not installed.
        """
        _refuse_offline(self)
        # Without the user's token, which is for the hub alone.
        _Download(_import_hub(self), self, self.url, wanted).run(part, report, {})

    def by_hand(self) -> str:
        """How a user gets the file without this program."""
        return f"download {self.url} {_AND_PUT}"

    def refused(self, code: str | None) -> str:
        """What a 401 or 403 means, and what to do about it."""
        return f"the server refuses {self.url}{f' ({code})' if code else ''}; {self.by_hand()}"


_AND_PUT = "where there is a network, and set RASA_WEIGHTS to the folder that holds it"


@dataclass(frozen=True, slots=True)
class _Download:
    """One file, fetched in as many pieces as the network makes of it."""

    hub: Any
    source: HubSource | UrlSource
    address: str
    wanted: Wanted

    def run(self, part: Path, report: Report, headers: Mapping[str, str]) -> None:
        """Continue ``part`` until it is as long as it should be."""
        failures, begun = 0, False
        while (done := _length(part)) < self.wanted.size:
            report(done, self.wanted.size)
            error = self._try(part, done, report, headers)
            grown = _length(part) > done
            begun, failures = begun or grown, 0 if grown else failures + 1
            status = _status(error)
            # Without a network, waiting for one would only hide the reason.
            if failures and (failures >= _TRIES or status not in (_BUSY if status or not begun else {None})):
                self._fail(error)
            if error is not None:
                time.sleep(_PAUSE_SECONDS)
        report(self.wanted.size, self.wanted.size)

    def _try(self, part: Path, done: int, report: Report, headers: Mapping[str, str]) -> Exception | None:
        try:
            self._stream(part, done, report, headers)
        # The base class of all errors of the HTTP client, which is another package in other versions of the hub.
        except self.hub.errors.HfHubHTTPError.__mro__[1] as error:
            failure: Exception = error
            return failure
        except self.hub.errors.OfflineModeIsEnabled as error:
            raise WeightsError(
                "huggingface_hub is in offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE was set when it was "
                f"loaded); unset it, or {self.source.by_hand()}"
            ) from error
        return None

    def _stream(self, part: Path, done: int, report: Report, headers: Mapping[str, str]) -> None:
        # Compressed, the bytes could not be counted.
        headers = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        seconds = self.hub.constants.HF_HUB_DOWNLOAD_TIMEOUT  # of silence
        with self.hub.get_session().stream("GET", self.address, headers=headers, timeout=seconds) as response:
            self.hub.utils.hf_raise_for_status(response)
            if response.status_code != 206:
                done = 0  # the server begins anew
            self._check_length(response, done)
            with part.open("r+b" if done else "wb") as file:
                file.seek(done)
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    file.write(chunk)
                    done += len(chunk)
                    if done > self.wanted.size:
                        self._refuse_length(part, f"more than {self.wanted.size}")
                    report(done, self.wanted.size)

    def _check_length(self, response: Any, done: int) -> None:
        announced = response.headers.get("Content-Length")
        if announced is not None and done + int(announced) != self.wanted.size:
            self._refuse_length(None, str(done + int(announced)))

    def _refuse_length(self, part: Path | None, length: str) -> NoReturn:
        if part is not None:
            part.unlink()
        raise WeightsError(
            f"{self.address} has {length} bytes, expected {self.wanted.size}: it is another file now, or a page of "
            f"some proxy; {self.source.by_hand()}"
        )

    def _fail(self, error: Exception | None) -> NoReturn:
        status = _status(error)
        if status in (401, 403):
            message = self.source.refused(_response(error).headers.get("X-Error-Code"))
        elif status == 404:
            message = (
                f"there is no {self.address}, or no longer; look for {self.source.file} at its authors', put it into "
                "a folder, and set RASA_WEIGHTS to that folder"
            )
        elif status == 416:  # a range past the end
            self._refuse_length(None, "fewer")
        elif status is not None:
            message = f"{self.address} answers {status}; try again later, or {self.source.by_hand()}"
        else:
            host = urlsplit(self.address).netloc
            what = "it stops before the end" if error is None else str(error) or type(error).__name__
            message = (
                f"no connection to {host}: {what}; check the network and fetch again, which goes on from where this "
                f"stopped, or {self.source.by_hand()}"
            )
        raise WeightsError(message) from error


def _refuse_offline(source: HubSource | UrlSource) -> None:
    if switch := offline_switch():
        raise WeightsError(f"{switch}=1 forbids the network; {source.by_hand()}")


def _import_hub(source: HubSource | UrlSource) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DependencyError(
            f'fetching {source.file} needs the package "huggingface_hub"; install the extra "ram", "dino" or "sam", '
            f"or {source.by_hand()}"
        ) from error


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _response(error: Exception | None) -> Any:
    return getattr(error, "response", None)


def _status(error: Exception | None) -> int | None:
    response = _response(error)
    return None if response is None else int(response.status_code)
