"""The "did you mean" of every error about a name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``'; did you mean "lite"?'``, or an empty string where no known name is close.

    Upper and lower case, ``-`` and ``_`` count as the same here, not elsewhere.
    """
    plain = {_plain(candidate): candidate for candidate in known}
    close = get_close_matches(_plain(name), plain, n=1)
    return f'; did you mean "{plain[close[0]]}"?' if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
