"""``rasa-ram clean``: the data engine's second half."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rasa.errors import ConfigError
from rasa_ram.cli._engine import (
    BatchSize,
    Device,
    Dtype,
    Images,
    Loaded,
    Manifest,
    ManifestFormat,
    ModelName,
    Out,
    OutFormat,
    RetryFailed,
    ShardSize,
    SkipBad,
    TruthFile,
    VocabularyFile,
    load_model,
    records_of,
    run_options,
    tell,
)

if TYPE_CHECKING:
    from rasa.protocols import Detector
    from rasa_ram.engine.clean_settings import CleanSettings
    from rasa_ram.tagger import RamTagger
    from rasa_ram.vocabulary import Vocabulary

app = typer.Typer(add_completion=False)


@app.command()
def clean(
    manifest: Manifest,
    *,
    images: Images,
    model: ModelName,
    detector: Annotated[str, typer.Option(help="Finds the regions of tags; `rasa models` lists them.")],
    out: Out,
    vocabulary: VocabularyFile = None,
    categories: Annotated[
        Path | None,
        typer.Option(help="Text file, a tag a line: what the detector can find. Else tags of the kind object, or all."),
    ] = None,
    box_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score of a region; else the detector's own.")
    ] = None,
    min_side: Annotated[float, typer.Option(min=1, help="Shorter side of a region in pixels.")] = 8,
    confirm_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score that a tag must exceed on a region; else its own.")
    ] = None,
    outlier_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="Of the images of a tag: those whose regions fit least lose it.")
    ] = 0.1,
    clusters: Annotated[int | None, typer.Option(min=1, help="Of each tag; else 1 for 100 images, at most 16.")] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Drop tags of which the detector finds nothing.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of clustering.")] = 0,
    truth: TruthFile = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    shard_size: ShardSize = 1024,
    out_format: OutFormat = ManifestFormat.jsonl,
    skip_bad: SkipBad = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Take wrong tags out of a training set.

    The detector cuts out the regions of each tag. Images whose regions are unlike all others of the tag lose it, and so
    do those on whose regions the model does not see it. OUT gets the new manifest, what was dropped and why, and a
    report. The command can be stopped and started again, and run several times at once on the same OUT.
    """
    from rasa.loading import resolve_device
    from rasa_ram.engine.clean_regions import RegionFinder
    from rasa_ram.engine.clean_settings import CleanSettings
    from rasa_ram.engine.region_models import RamEmbedder
    from rasa_ram.engine.runs import clean_into
    from rasa_ram.images import ImageFolder

    device = resolve_device(device)
    found = _detector(detector, device=device, dtype=dtype, box_threshold=box_threshold)
    loaded = load_model(model, vocabulary, device=device, dtype=dtype)
    table = loaded.vocabulary
    settings = CleanSettings(
        names=table.names,
        categories=_categories(categories, table),
        box_threshold=box_threshold or 0.0,
        min_side=min_side,
        confirm_threshold=confirm_threshold,
        outlier_share=outlier_share,
        clusters=clusters,
        missing="drop" if drop_missing else "keep",
        seed=seed,
        batch_size=batch_size,
    )
    embedder = RamEmbedder(loaded.model, batch_size=batch_size, provenance=loaded.provenance)
    work = RegionFinder(ImageFolder(images), found, _tagger(loaded, settings, batch_size), embedder, settings)
    options = run_options(table, out_format, shard_size=shard_size, truth=truth, retry_failed=retry_failed)
    tell(clean_into(records_of(manifest, table, skip_bad=skip_bad), out, work, options), out, options)


def _detector(name: str, *, device: str, dtype: str, box_threshold: float | None) -> Detector:
    from rasa.cli._console import fetch_weights
    from rasa.registry import build, find_model, takes_option

    entry = find_model(name)
    if entry.role != "detector":
        raise ConfigError(f'--detector must name a detector, "{name}" is a {entry.role}; `rasa models` lists them')
    fetch_weights(entry.checkpoints)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    if box_threshold is not None and takes_option(name, "box_threshold"):
        options["box_threshold"] = box_threshold
    return cast("Detector", build(name, **options))


def _categories(path: Path | None, table: Vocabulary) -> tuple[str, ...] | None:
    from rasa_ram.vocabulary_files import read_vocabulary

    if path is not None:
        return tuple(dict.fromkeys(read_vocabulary(path).names))
    if table.kinds is None:
        return None
    pairs = zip(table.names, table.kinds, strict=True)
    return tuple(dict.fromkeys(name for name, kind in pairs if kind in ("object", None))) or None


def _tagger(loaded: Loaded, settings: CleanSettings, batch_size: int) -> RamTagger:
    """A tagger that decodes the categories alone."""
    from rasa_ram.tagger import RamTagger

    names = dict.fromkeys(settings.names[tag] for tag in sorted(settings.asked))
    allowed = [name for name in names if name not in loaded.denied]
    options: dict[str, Any] = {"batch_size": batch_size, "provenance": loaded.provenance}
    return RamTagger(loaded.model, loaded.vocabulary, allow=allowed, **options)
