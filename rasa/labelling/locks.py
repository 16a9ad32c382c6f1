"""The lock of one shard of one run; where there are no locks, two workers may label it twice, which costs time only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rasa._locks import file_lock


class HasKey(Protocol):
    """What is asked of a shard."""

    @property
    def key(self) -> str:
        """Its name, such as ``"shard-000042"``."""
        ...


@contextlib.contextmanager
def shard_lock(dataset: Path, fingerprint: str, shard: HasKey, *, wait: bool = False) -> Iterator[bool]:
    """Hold one shard of one run, so that no other process works on it.

    Yields:
        Whether the lock is held; False, at once, if another process has it and ``wait`` is not given.

    Raises:
        OutputError: If the lock file cannot be made.
    """
    with file_lock(dataset / "locks" / fingerprint / f"{shard.key}.lock", wait=wait) as held:
        yield held
