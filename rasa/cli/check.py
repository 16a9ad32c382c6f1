"""``rasa check``: does the tagger see in each box what the label says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rasa.cli._console import count_progress, emit, say
from rasa.errors import ConfigError

if TYPE_CHECKING:
    from rasa.protocols import Tagger

app = typer.Typer()


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="What `rasa label` wrote.")],
    *,
    preset: Annotated[str, typer.Option(help="Whose tagger is asked; see `rasa presets`; or a TOML file.")] = "lite",
    run: Annotated[str | None, typer.Option(help="Run of the dataset; else the current one.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Drop objects whose label has a lower score in their cut-out.")
    ] = None,
    tag_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest score that the tagger gives; below, a tag counts as absent.")
    ] = 0.05,
    surroundings: Annotated[
        float, typer.Option(min=0, max=10, help="Of the photo around a box, as a share of its sides.")
    ] = 0.2,
    ontology: Annotated[
        Path | None, typer.Option(help="TOML file; labels of one class in it confirm each other.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda; else the preset's.")] = None,
) -> None:
    """Ask the tagger about each box of a labelled dataset.

    The cut-out of each box is tagged alone. The score and rank of the label's tag go to DATASET/checks/KEY, and a new
    run becomes the current one, which names its parent: with all labels, or with --min-agreement without the objects
    that the tagger does not confirm. The old run stays: name it with --run. What is checked is not checked again.
    """
    from rasa.labelling.checked import check_dataset
    from rasa.labelling.dataset import open_dataset
    from rasa.labelling.region_check import RegionCheck

    opened = open_dataset(dataset, run=run)
    classes: dict[str, str] = {}
    if ontology is not None:
        from rasa.formats.classes import read_ontology

        classes = dict(read_ontology(ontology).classes)
    asked = RegionCheck(_tagger(preset, tag_threshold, device), surroundings=surroundings, classes=classes)
    with count_progress(opened.counts.ok, what="photos") as advance:
        done = check_dataset(opened, asked, min_agreement=min_agreement, progress=advance)
    unread = f"; {done.unread} photos could not be read again, and keep their objects" if done.unread else ""
    say(
        f"{done.objects} objects: the tagger names {done.named} as labelled, {done.first} of them first; "
        f"{done.dropped} dropped{unread}"
    )
    say(f"agreement in {done.folder}; run {done.dataset.fingerprint}, from {opened.fingerprint}")
    emit(done.dataset.fingerprint)


def _tagger(preset: str, tag_threshold: float, device: str | None) -> Tagger:
    from rasa.cli.run import fetch_missing
    from rasa.loading import load_config, resolve_device
    from rasa.registry import build

    config = load_config(preset, **({} if device is None else {"device": device}))
    if config.tagger is None:
        raise ConfigError(f'preset "{preset}" has no tagger; name another --preset')
    fetch_missing(config.with_overrides({"detector": None, "segmenter": None}))
    options: dict[str, Any] = {"device": resolve_device(config.device), "dtype": config.dtype}
    tagger: Tagger = build(config.tagger, **options, tag_threshold=tag_threshold)
    return tagger
