"""Safe text for HTML: everything that comes from outside is escaped, shortened and kept on its own side of the line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape

_LIMIT = 160  # characters of a name; a page must not grow by one endless tag


def safe(text: object, limit: int = _LIMIT) -> str:
    """``text`` as HTML, without signs that are invisible or turn the line round, cut in the middle at ``limit``."""
    plain = str(text)
    if len(plain) > limit:
        plain = f"{plain[: limit - limit // 3]}…{plain[-(limit // 3) :]}"
    shown = "".join(sign if sign.isprintable() or sign in "\u200c\u200d" else ascii(sign)[1:-1] for sign in plain)
    return escape(shown, quote=True)


def name(text: object, limit: int = _LIMIT) -> str:
    """As :func:`safe`, and apart from the writing direction of what stands around it."""
    return f"<bdi>{safe(text, limit)}</bdi>"


def number(value: float) -> str:
    """A count for people.

    Example:
        >>> number(12345), number(0.5), number(12.345)
        ('12,345', '0.5', '12.3')
    """
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2g}"


def plural(count: int, what: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "image"), plural(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number(count)} {what}" if count == 1 else f"{number(count)} {what}s"


def percent(share: float) -> str:
    """A share for people.

    Example:
        >>> percent(0.5), percent(0.001), percent(0), percent(0.999), percent(0.00001)
        ('50 %', '0.1 %', '0 %', '99.9 %', '<0.01 %')
    """
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01 %"
    if value in (0, 100) or 10 <= value < 99:
        return f"{value:.0f} %"
    return f"{float(f'{value:.2g}'):g} %" if value < 10 else f"{value:.1f} %"


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(0.0004), duration(0.25), duration(12.34), duration(7260)
        ('0.40 ms', '250 ms', '12.3 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 or seconds == 0 else f"{1000 * seconds:.2f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def file_size(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> file_size(999), file_size(2_500_000)
        ('999 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def table(head: Iterable[tuple[str, str]], rows: Iterable[Iterable[str]], *, sortable: bool = False) -> str:
    """A table of cells that are HTML already.

    Args:
        head: Title and class of each column; the class "n" is for numbers.
        rows: One cell per column; a cell may begin with ``data:VALUE|``, by which its column is sorted then.
        sortable: Whether a click on a title sorts.
    """
    columns = list(head)
    titles = "".join(
        f'<th scope="col" class="{kind}">{f"<button type=button>{title}</button>" if sortable else title}</th>'
        for title, kind in columns
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, kind) for cell, (_, kind) in zip(row, columns, strict=True)) + "</tr>"
        for row in rows
    )
    kind = "sortable" if sortable else "plain"
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(cell: str, kind: str) -> str:
    value = ""
    if cell.startswith("data:"):
        key, _, cell = cell.removeprefix("data:").partition("|")
        value = f' data-v="{key}"'
    return f'<td class="{kind}"{value}>{cell}</td>'


def source_hash(text: str) -> str:
    """What a content security policy calls an inline style or script that it allows."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the address of an image."""
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
