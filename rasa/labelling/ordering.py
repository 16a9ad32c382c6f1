"""The order in which names are listed."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts ``img2`` before ``img10``."""
    # Splitting by a group alternates text and number, so that like is compared with like.
    pieces = re.split(r"([0-9]+)", name.casefold())
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name
