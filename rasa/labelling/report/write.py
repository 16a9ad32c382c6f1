"""Write the page: twice through the dataset, once to count and choose, once to draw what was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasa.errors import InputError, OutputError
from rasa.formats.split import split_of
from rasa.labelling._files import write_atomically
from rasa.labelling.report.facts import MATRIX_TAGS, About, Facts, Pairs, Parts, choose
from rasa.labelling.report.page import build_page
from rasa.labelling.report.sheets import Sheets, wanted_rows
from rasa.labelling.report.tally import Tally, names_of

if TYPE_CHECKING:
    from rasa.labelling.dataset import Dataset

MAX_BYTES = 8_000_000
_MAX_PICTURES = 6_500_000  # of these, as base64; the rest is for text and charts
_BALANCE_TAGS = 60
_MARK = b'<meta name="generator" content="rasa '


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was written.

    Attributes:
        path: The page.
        bytes: Its size.
        images: Images of the dataset.
        pictures: Pictures on the page.
        unreadable: Photos that could not be shown, as they are no longer where they were, or have changed.
    """

    path: Path
    bytes: int
    images: int
    pictures: int
    unreadable: int


def write_report(dataset: Dataset, path: str | Path, *, samples: int = 12, seed: int = 0) -> ReportSummary:
    """Write one self-contained HTML page about a labelled dataset.

    Nothing on it is fetched from anywhere, and the same dataset gives the same bytes. The photos of the samples are
    read where they were when they were labelled; a place is kept for those that are gone. Memory grows with the
    number of different tags, not of images.

    Args:
        dataset: From :func:`rasa.labelling.open_dataset`.
        path: The HTML file; an earlier report there is replaced, and no other file.
        samples: Pictures a tag: a third with the highest scores, a third with the lowest, a third at random. With 0,
            no photo is read.
        seed: Decides which are "at random".

    Raises:
        InputError: If ``samples`` is negative or above 60.
        OutputError: If ``path`` is another file, or cannot be written.
        FormatError: If the dataset is damaged.

    Needs the extra "lite" beside "label": :mod:`rasa.draw` paints the samples.
    """
    if not 0 <= samples <= 60:
        raise InputError(f"samples must be from 0 to 60 pictures a tag, got {samples}")
    path = Path(path)
    _check_replaceable(path)
    tally = _count(dataset, Tally(each=-(-samples // 3), seed=seed))
    facts = _draw(dataset, tally)
    page = build_page(facts).encode("utf-8", "backslashreplace")
    _save(path, page)
    return ReportSummary(path, len(page), tally.images, page.count(b"<img "), len(facts.sheets.unreadable))


def _count(dataset: Dataset, tally: Tally) -> Tally:
    for position, image in enumerate(dataset.rows()):
        tally.add(position, image.row)
    for _, stage, seconds in dataset.timings():
        tally.add_seconds(stage, seconds)
    return tally


def _draw(dataset: Dataset, tally: Tally) -> Facts:
    ranked = list(tally.ranked())
    common = [tag for tag, _ in sorted(ranked, key=lambda item: (-item[1].images, item[0]))]
    classes = [tag for tag, counted in ranked if counted.objects] or common
    pairs, parts = Pairs(common[:MATRIX_TAGS]), Parts(classes[:_BALANCE_TAGS])
    picks = choose(tally)
    sheets = Sheets(wanted_rows(picks))
    for position, image in enumerate(dataset.rows()):
        if not image.ok:
            continue
        names = names_of(image.row)
        pairs.add(names)
        parts.add(split_of(image.id), [found["label"] for found in image.row.instances] or sorted(names))
        sheets.draw(position, image)
    shown = sheets.trim(_MAX_PICTURES, [tag for tag in picks if tag])
    return Facts(_about(dataset), tally, pairs, parts, sheets, shown)


def _about(dataset: Dataset) -> About:
    return About(
        name=dataset.folder.resolve().name or str(dataset.folder),
        fingerprint=dataset.fingerprint,
        provenance=dataset.run.provenance,
        finished=dataset.finished,
        duplicates=list(dataset.duplicates().values()),
    )


def _check_replaceable(path: Path) -> None:
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the report a file name, such as {path / 'report.html'}")
        if path.exists():
            with path.open("rb") as file:
                if _MARK not in file.read(4096):
                    raise OutputError(f"{path} is there already and no report of rasa; give another --out")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot read {path}: {error.strerror}; give another --out") from error


def _save(path: Path, page: bytes) -> None:
    with write_atomically(path) as file:
        file.write(page)
