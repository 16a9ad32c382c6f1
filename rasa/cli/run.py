"""``rasa run``: photos to annotated pictures, masks and results.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, cast

import typer

from rasa.cli._console import count_progress, emit, fetch_weights, print_table, say
from rasa.cli._options import with_config_options
from rasa.cli._outputs import OutputFolder
from rasa.config import PipelineConfig
from rasa.errors import ConfigError, InputError, RasaError, WeightsError
from rasa.io.find import find_images
from rasa.io.results import write_results
from rasa.loading import config_checkpoints, load, load_config
from rasa.registry import find_model
from rasa.runner import Processed
from rasa.types import Result
from rasa.weights import checkpoints

app = typer.Typer()


class OnError(StrEnum):
    """What a photo that cannot be processed does to the run."""

    SKIP = "skip"
    RAISE = "raise"


# A command has as many parameters as it has options; the flags of the configuration come from its fields.
@app.command()
@with_config_options
def run(
    photos: Annotated[list[Path], typer.Argument(help="Photos, folders, and patterns in quotes.", show_default=False)],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for pictures, masks and results.jsonl.")
    ] = None,
    preset: Annotated[str, typer.Option(help="See `rasa presets`; or a TOML file.")] = "lite",
    tags: Annotated[str | None, typer.Option(help='Look for these, as "dog,red car"; no tagger runs.')] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that go through the models together.")] = 1,
    on_error: Annotated[OnError, typer.Option(help="What a broken photo does to the run.")] = OnError.SKIP,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON Lines in place of the table; needs no --out.")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="Write annotated pictures.")] = True,
    masks: Annotated[bool, typer.Option(help="Write masks as PNG label maps.")] = True,
    compare: Annotated[bool, typer.Option("--side-by-side", help="Show the photo beside its annotation.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of an earlier run.")] = False,
    overrides: dict[str, Any],
) -> None:
    """Tag, detect and segment photos.

    Writes DIR/annotated/NAME.jpg, DIR/masks/NAME.png and DIR/results.jsonl, where each result says
    under "provenance", "files" which files are its own. Exits with 0 if any photo was processed, with 1
    if none was, or at the first broken photo with `--on-error raise`. After Ctrl-C, what is done is kept.
    """
    _check_flags(out=out, as_json=as_json, pictures=pictures, compare=compare, overwrite=overwrite)
    wanted = _split_tags(tags, overrides)
    config = load_config(preset, **overrides)
    _check_models(config, preset, wanted)
    if wanted is not None:
        overrides["tagger"] = None  # then its weights need not be there either
        config = config.with_overrides({"tagger": None})
    sources = _find_photos(photos, out)
    folder = None
    if out is not None:
        folder = OutputFolder(out, sources, pictures=pictures, masks=masks, compare=compare)
        folder.prepare(overwrite=overwrite)
    fetch_missing(config)
    pipeline = load(preset, **overrides)
    stream = pipeline.stream_with_images(sources, batch_size=batch_size, on_error=on_error.value, tags=wanted)
    job = _Job(cast("Generator[Processed]", stream), folder, len(sources), as_json)
    try:
        job.run()
    except KeyboardInterrupt as error:
        say(f"interrupted; {job.summary()}")
        raise typer.Exit(130) from error
    except RasaError:
        job.report()
        raise
    job.report()
    if job.failed == len(sources):
        raise typer.Exit(1)


@dataclass
class _Job:
    """One run: takes results from the pipeline, writes their files, and keeps what the table will say."""

    stream: Generator[Processed]
    folder: OutputFolder | None
    total: int
    as_json: bool
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    failed: int = 0
    start: float = field(default_factory=perf_counter)

    def run(self) -> None:
        """Process all photos.

        Raises:
            RasaError: If a photo fails and errors are not skipped, or a file cannot be written;
                what was done before is in the folder.
        """
        with count_progress(self.total, what="photos") as advance, closing(self.stream):
            results = self._results(advance)
            if self.folder is not None:
                write_results(self.folder.results, results)
            else:
                for _ in results:
                    pass

    def _results(self, advance: Callable[[], None]) -> Iterator[Result]:
        for index, done in enumerate(self.stream):
            result = done.result
            if self.folder is not None:
                files = self.folder.write(self.folder.outputs[index], done)
                result = replace(result, provenance={**result.provenance, "files": files})
            if self.as_json:
                emit(result.to_json())
            yield result
            # Counted once it is in results.jsonl.
            self.failed += not result.ok
            self.rows.append(_row(result))
            advance()

    def report(self) -> None:
        if self.rows and not self.as_json:
            print_table(("photo", "tags", "objects", "seconds"), self.rows)
        say(self.summary())

    def summary(self) -> str:
        failed = f", {self.failed} of them failed" if self.failed else ""
        where = f"; outputs in {self.folder.folder}" if self.folder is not None else ""
        return f"{len(self.rows)} of {self.total} photos in {perf_counter() - self.start:.1f} s{failed}{where}"


def _check_flags(*, out: Path | None, as_json: bool, pictures: bool, compare: bool, overwrite: bool) -> None:
    if out is None and not as_json:
        raise typer.BadParameter("give --out DIR for files, or --json for results on stdout alone")
    if out is None and (compare or overwrite):
        raise typer.BadParameter("--side-by-side and --overwrite are about the files of --out DIR; give it too")
    if compare and not pictures:
        raise typer.BadParameter("--side-by-side is about the pictures that --no-pictures leaves out")


def _split_tags(tags: str | None, overrides: Mapping[str, Any]) -> list[str] | None:
    if tags is None:
        return None
    wanted = [tag.strip() for tag in tags.split(",") if tag.strip()]
    if not wanted:
        raise typer.BadParameter('--tags must name at least one tag, as in --tags "dog,red car"')
    if any("\ud800" <= sign <= "\udfff" for sign in tags):  # what Python makes of bytes that are no UTF-8
        raise typer.BadParameter(f"--tags must be UTF-8 text, got {tags!r}")
    if "tagger" in overrides or "tag_threshold" in overrides:
        raise typer.BadParameter("--tags takes the place of a tagger; leave --tagger and --tag-threshold out")
    return wanted


def _check_models(config: PipelineConfig, preset: str, wanted: list[str] | None) -> None:
    if config.tagger is None and wanted is None:
        raise ConfigError(f'preset "{preset}" has no tagger; say what to look for with --tags, or name a --tagger')
    if config.detector is None and wanted is not None:
        raise ConfigError(f'preset "{preset}" has no detector that could look for the --tags; name a --detector')


def _find_photos(photos: Sequence[Path], out: Path | None) -> list[Path]:
    """All photos, without what an earlier run wrote where this one will write."""
    found = find_images(photos)
    if out is None:
        return found
    outputs = {(out / name).resolve() for name in ("annotated", "masks")}
    kept = [path for path in found if path.parent.resolve() not in outputs]
    if not kept:
        raise InputError(f"all {len(found)} photos lie in {out}, where the outputs go; give another --out")
    if len(kept) < len(found):
        say(f"left out {len(found) - len(kept)} pictures in {out}, where the outputs go")
    return kept


def fetch_missing(config: PipelineConfig) -> None:
    """Fetch the checkpoints of ``config`` that are not in the cache.

    Raises:
        WeightsError: If one cannot be had that its model needs.
    """
    models = [find_model(name) for name in config.models]
    for model in models:
        if model.folder is not None:
            model.folder.require()  # before gigabytes are fetched for the others
    needed = {name for model in models for name in model.checkpoints}
    for name in config_checkpoints(config):
        if name not in checkpoints():
            continue  # a plugin's own: its model fetches it
        try:
            fetch_weights([name])
        except WeightsError:
            if name in needed:
                raise
            # The model that can do without says so itself.


def _row(result: Result) -> tuple[str, str, str, str]:
    seconds = f"{sum(result.timings.values()):.2f}"
    if result.failure is not None:
        return result.name, f"failed: {result.failure.message}", "", seconds
    tags = ", ".join(f"{name} {score:.2f}" for name, score in zip(result.tags.names, result.tags.scores, strict=True))
    counts = Counter(result.instances.labels)
    objects = ", ".join(label if count == 1 else f"{label} x{count}" for label, count in counts.items())
    return result.name, tags, objects, seconds
