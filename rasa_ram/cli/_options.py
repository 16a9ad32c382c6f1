"""Options that commands of several kinds share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class OnBadRecord(StrEnum):
    """What is done about a record that breaks the format."""

    skip = "skip"
    stop = "stop"


OnBad = Annotated[OnBadRecord, typer.Option(help="At a record of a manifest that breaks the format.")]
