"""Where a tag came from, or why it went: notes, and the Parquet side table that keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.errors import DependencyError
from rasa.protocols import Described

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise DependencyError('the data engine needs the package "pyarrow"; install the extra "engine"') from error

# The origins of a tag that an image has: stated in the manifest, said by one of its captions, said by a caption that
# the captioner wrote, given by the tagger.
GIVEN, PARSED, CAPTIONED, GENERATED = "given", "parsed", "captioned", "generated"
# Why an image lost a tag: its regions lie far from those of other images, the tagger does not see it on them, the
# detector found none.
OUTLIER, UNCONFIRMED, BOTH, NOT_FOUND = "outlier", "unconfirmed", "outlier and unconfirmed", "not found"
# The detector found no region of a tag, which was kept all the same.
UNSEEN = "not found, kept"

_SCHEMA = pa.schema([
    ("image_path", pa.string()),
    ("tag", pa.int32()),
    ("name", pa.dictionary(pa.int32(), pa.string())),
    ("what", pa.dictionary(pa.int32(), pa.string())),
    ("score", pa.float32()),
    ("distance", pa.float32()),
])  # fmt: skip
_ROWS = 65536  # of a row group


@dataclass(frozen=True, slots=True)
class TagNote:
    """What happened to one tag of one image.

    Attributes:
        tag: Its id.
        what: One of the words above.
        score: In [0, 1], the tagger's: on the image where the tag was generated, the best on its regions where it was
            cleaned; None where the tagger did not give it.
        distance: Of the nearest of its regions to the centre of its cluster; None where nothing was clustered.
    """

    tag: int
    what: str
    score: float | None = None
    distance: float | None = None


def identity(model: object) -> Mapping[str, Any]:
    """What a model says of itself, or its class: what the journal keeps of it."""
    return dict(model.describe()) if isinstance(model, Described) else {"model": type(model).__name__}


def name_of(names: Sequence[str], tag: int) -> str:
    """The name of an id, or the id itself where the vocabulary has none.

    >>> name_of(("cat",), 0), name_of(("cat",), 7)
    ('cat', '#7')
    """
    return names[tag] if 0 <= tag < len(names) else f"#{tag}"


@contextlib.contextmanager
def side_table(path: Path, names: Sequence[str]) -> Iterator[Callable[[str, Sequence[TagNote]], None]]:
    """A Parquet table with a row per note: image_path, tag, name, what, score, distance.

    Args:
        path: It appears when the block ends without an error.
        names: Of the ids.

    Yields:
        A function to call with an image and its notes.

    Raises:
        OutputError: If it cannot be written.
    """
    with write_atomically(path, sync=True) as file, pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            rows.clear()

        def add(image_path: str, notes: Sequence[TagNote]) -> None:
            path_text = image_path.encode("utf-8", "backslashreplace").decode("utf-8")
            for note in notes:
                row = {"image_path": path_text, "tag": note.tag, "name": name_of(names, note.tag), "what": note.what}
                rows.append({**row, "score": note.score, "distance": note.distance})
            if len(rows) >= _ROWS:
                flush()

        yield add
        flush()
