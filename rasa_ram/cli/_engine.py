"""What ``rasa-ram generate`` and ``rasa-ram clean`` share: the model, the records, and how the result is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rasa.cli._console import emit, print_table, say
from rasa.errors import ImageError

if TYPE_CHECKING:
    from rasa_ram.data.records import Record
    from rasa_ram.engine.report import Tally
    from rasa_ram.engine.runs import RunOptions
    from rasa_ram.modeling.ram import Ram
    from rasa_ram.vocabulary import Vocabulary


class ManifestFormat(StrEnum):
    """The ending of the manifest that comes out."""

    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


Manifest = Annotated[Path, typer.Argument(help="Records: .json as published, .jsonl or .parquet.")]
Images = Annotated[Path, typer.Option(help="Folder that the image paths of the records begin in.")]
Out = Annotated[Path, typer.Option(help="Folder for the result; one that holds a part of it goes on.")]
ModelName = Annotated[str, typer.Option(help="A published model, or a file or folder of weights.")]
VocabularyFile = Annotated[
    Path | None, typer.Option(help="Of the model and the records: .json, .csv or .txt; else the model's own.")
]
TruthFile = Annotated[
    Path | None, typer.Option(help="True tags of some images: a manifest, or a CSV file with the columns image, tag.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out records that break the format, and count them.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do shards again of which images were unreadable.")]
OutFormat = Annotated[ManifestFormat, typer.Option("--format", help="Of the manifest that comes out.")]
ShardSize = Annotated[int, typer.Option(min=1, help="Records that are done or not done as a whole.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at once.")]
Device = Annotated[str, typer.Option(help="Such as cuda; auto takes the best there is.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]


@dataclass(frozen=True)
class Loaded:
    """A model with its vocabulary, and where both came from."""

    model: Ram
    vocabulary: Vocabulary
    denied: tuple[str, ...]
    provenance: Mapping[str, Any]


def load_model(source: str, vocabulary: Path | None, *, device: str, dtype: str) -> Loaded:
    """Load a model by name or path, once for all that it is used for.

    Raises:
        InputError: If nothing tells the vocabulary.
        WeightsError: If weights or lists cannot be had.
    """
    from rasa_ram.checkpoint import load
    from rasa_ram.published import model_tags
    from rasa_ram.vocabulary_files import read_vocabulary

    tags = model_tags(source, None if vocabulary is None else read_vocabulary(vocabulary))
    return Loaded(load(source, device=device, dtype=dtype), tags.vocabulary, tags.denied, weights_of(source))


def weights_of(source: str) -> Mapping[str, Any]:
    """The name and sha256 of weights: a run must not go on with others."""
    from rasa._torch.files import model_files, source_hash
    from rasa_ram._fingerprint import provenance_of

    known, path = provenance_of(source), Path(source)
    file = model_files(path)[1] if path.is_dir() else path
    if "sha256" in known or not file.is_file():
        return known
    return {**known, "sha256": source_hash(file)}


def records_of(manifest: Path, table: Vocabulary, *, skip_bad: bool) -> Iterator[Record]:
    """The records of a manifest; what was skipped is told at the end."""
    from rasa_ram.data.manifest import ReadReport, read_records

    report = ReadReport()
    on_bad = "skip" if skip_bad else "stop"
    yield from read_records(manifest, on_bad=on_bad, vocabulary_size=len(table), report=report)  # type: ignore[arg-type]
    if left_out := report.bad + report.captions_left_out:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in report.counts.most_common())
        what = "records" if report.bad == left_out else "records and captions"
        say(f"{left_out} {what} of {manifest} left out ({kinds}); see `rasa-ram data check`")


def run_options(
    table: Vocabulary, out_format: ManifestFormat, *, shard_size: int, truth: Path | None, retry_failed: bool
) -> RunOptions:
    """How a step runs in its folder; the number of finished records goes to stderr."""
    from rasa_ram.engine.runs import RunOptions
    from rasa_ram.engine.truth import read_truth

    return RunOptions(
        manifest=f"records.{out_format.value}",
        shard_size=shard_size,
        truth=None if truth is None else read_truth(truth, table),
        progress=_counter(),
        retry_failed=retry_failed,
    )


def tell(tally: Tally, out: Path, options: RunOptions) -> None:
    """Print the overall figures, and where the manifest is."""
    from rasa_ram.data.manifest import read_records

    figures = tally.report()
    overall = figures["overall"]
    always = {"before", "after", *(("judged_images",) if options.truth is not None else ())}
    shown = [(name, _text(value)) for name, value in overall.items() if value or name in always]
    print_table(("all tags", "number"), shown)
    if figures["failed"]:
        first = figures["failures"][0]
        say(f"{figures['failed']} images could not be read, such as {first['image_path']}: {first['message']}")
    if options.truth and not overall["judged_images"]:
        ours = next((record.image_path for record in read_records(out / options.manifest, on_bad="skip")), "nothing")
        theirs = next(iter(options.truth))
        say(f"warning: no image of the records is in --truth: they have {ours!r}, it has {theirs!r}")
    say(f"what changed by tag: {out / 'report.md'}")
    emit(str(out / options.manifest))
    if figures["images"] and figures["failed"] == figures["images"]:
        raise ImageError(
            "no image could be read; give the folder that the paths begin in as --images, with --retry-failed"
        )


def _counter() -> Callable[[int], None]:
    done = 0

    def count(records: int) -> None:
        nonlocal done
        done += records
        say(f"{done} records")

    return count


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
