"""``rasa export``: a labelled dataset in the formats of other tools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.cli._console import print_table, say

if TYPE_CHECKING:
    from rasa.formats.classes import Ontology
    from rasa.formats.samples import WriteReport
    from rasa.labelling.export import Parts
    from rasa.labelling.quality import Change

app = typer.Typer()

_LARGEST_GAP = 1e-6  # that shares such as 0.7,0.2,0.1 may miss 1 by


@app.command()
def export(
    dataset: Annotated[Path, typer.Argument(help="What `rasa label` wrote.")],
    *,
    to: Annotated[list[str], typer.Option(help="A format, see `rasa formats`; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; each format gets one of its name in it.")],
    run: Annotated[str | None, typer.Option(help="Run of the dataset; else the current one.")] = None,
    split: Annotated[str | None, typer.Option(help="Shares of train, val and test, as 0.8,0.1,0.1.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    stratify: Annotated[bool, typer.Option("--stratify", help="Give every tag its share in each part.")] = False,
    ontology: Annotated[Path | None, typer.Option(help="TOML file: label to class, and what is dropped.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of an object.")] = 0.0,
    min_mask_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of its mask.")] = 0.0,
    min_area: Annotated[float, typer.Option(min=0, help="Fewest pixels of its mask, or of its box.")] = 0.0,
    min_tag_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of a tag.")] = 0.0,
    kind: Annotated[list[str] | None, typer.Option(help="Kind of tags that stays; may be repeated.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Label that goes; may be repeated.")] = None,
    merge_same: Annotated[
        float | None, typer.Option(min=0, max=1, help="Merge objects of one class that overlap more (IoU).")
    ] = None,
    merge_others: Annotated[
        float | None, typer.Option(min=0, max=1, help="Merge objects of different classes that overlap more (IoU).")
    ] = None,
) -> None:
    """Write a labelled dataset in the formats of other tools.

    Prints for each format what was written and what it could not hold; of masks that became outlines, how well the
    worst was kept (IoU) and which it was. The same dataset gives the same files, byte for byte. Labels that the
    ontology gives one class count as synonyms when objects are merged.
    """
    from rasa.formats.classes import Ontology, read_ontology
    from rasa.labelling.dataset import open_dataset
    from rasa.labelling.export import export as write_formats
    from rasa.labelling.quality import Keep

    parts = _parts(split, seed=seed, stratify=stratify)
    classes = Ontology() if ontology is None else read_ontology(ontology)
    kinds = tuple(kind) if kind else None
    keep = Keep(min_score, min_mask_score, min_area, min_tag_score, kinds, frozenset(drop or ()))
    opened = open_dataset(dataset, run=run)
    if not opened.finished:
        say(f"run {opened.fingerprint} is not finished: {opened.counts.labelled} of {opened.counts.planned} photos")
    changes: list[Change] = [keep, *_merging(merge_same, merge_others, classes)]
    reports = write_formats(opened, out, to=to, ontology=classes, split=parts, changes=changes)
    print_table(("format", "images", "objects", "worst outline", "not held"), [_row(*item) for item in reports.items()])
    say(f"run {opened.fingerprint} of {dataset} in {out}")


def _parts(split: str | None, *, seed: int, stratify: bool) -> Parts | None:
    from rasa.labelling.export import Parts

    if split is None:
        if stratify or seed:
            raise typer.BadParameter("--seed and --stratify are about the parts of --split; give it too")
        return None
    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError as error:
        raise typer.BadParameter(f'--split must be three shares, as "0.8,0.1,0.1", got {split!r}') from error
    if not (min(train, val, test) >= 0 and abs(train + val + test - 1) <= _LARGEST_GAP):
        raise typer.BadParameter(f"the shares of --split must be at least 0 and 1 together, got {split!r}")
    return Parts(val, test, seed, stratify)


def _merging(same: float | None, others: float | None, ontology: Ontology) -> list[Change]:
    from rasa.labelling.quality import Merge

    if same is None and others is None:
        return []
    limits: Mapping[str, float] = {
        "same_iou": 1.0 if same is None else same,
        "other_iou": 1.0 if others is None else others,
    }
    return [Merge(**limits, classes=ontology.classes)]


def _row(name: str, report: WriteReport) -> tuple[str, ...]:
    worst = ""
    if report.worst_iou is not None:
        iou, image, label = report.worst_iou
        # Rounded down: 1.0000 says that nothing was lost.
        worst = f"{math.floor(iou * 10**4) / 10**4:.4f} {label} in {image}"
    lost = "\n".join(f"{count} {what}" for what, count in report.lost.items())
    return name, str(report.images), str(report.objects), worst, lost
