"""JSON files with a long list, or two, that never lie in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class JsonLists:
    """Writes ``{"first": [...], "second": [...], ...}`` while entries of all the lists come in any order.

    The first list grows in the file itself, each further one in a temporary file beside it that is joined in the end.

    Args:
        path: The file to write.
        names: Of the lists, in the order of the file.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._names, self._counts = names, dict.fromkeys(names, 0)
        self._paths = [path, *(path.with_name(f"{path.name}.{name}") for name in names[1:])]
        self._closing = ExitStack()
        self._files: list[IO[bytes]] = [self._closing.enter_context(part.open("wb+")) for part in self._paths]
        self._files[0].write(b"{" + _dump(names[0]) + b":[")

    def __enter__(self) -> JsonLists:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        for path in self._paths[1:]:
            path.unlink(missing_ok=True)

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Append ``entry`` to the list called ``name``."""
        file = self._files[self._names.index(name)]
        file.write((b",\n" if self._counts[name] else b"\n") + _dump(entry))
        self._counts[name] += 1

    def finish(self, rest: Mapping[str, Any]) -> None:
        """Join the lists, and end the file with the keys of ``rest``."""
        whole = self._files[0]
        for name, file in zip(self._names[1:], self._files[1:], strict=True):
            whole.write(b"],\n" + _dump(name) + b":[")
            file.seek(0)
            shutil.copyfileobj(file, whole, 2**20)
        whole.write(b"]" + b"".join(b",\n" + _dump(key) + b":" + _dump(value) for key, value in rest.items()) + b"}\n")


def _dump(value: object) -> bytes:
    # A name that is no UTF-8 came as escapes, see rasa.io.images.printable.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
