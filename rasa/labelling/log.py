"""``log.jsonl``: what happened to a dataset and when, one JSON object a line; never read by rasa."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rasa.errors import OutputError


@dataclass(frozen=True, slots=True)
class RunLog:
    """Appends to the log of a dataset; several processes may do so at once.

    Attributes:
        path: The file.
        fingerprint: Of the run, in every line.
    """

    path: Path
    fingerprint: str = ""

    def note(self, event: str, /, **values: Any) -> None:
        """Write one line: the time (UTC, ISO 8601), the process, the event, and ``values``, plain JSON.

        Raises:
            OutputError: If it cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "pid": os.getpid(), "run": self.fingerprint, "event": event, **values}
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode("ascii")
        try:
            # One write of a file opened to append is whole, also beside another process.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; free some room") from error
