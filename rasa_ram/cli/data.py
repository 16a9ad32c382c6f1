"""``rasa-ram data``: training data, checked, converted and put into shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.cli._console import emit, print_table, say
from rasa.errors import InputError
from rasa_ram.cli._options import OnBad, OnBadRecord

if TYPE_CHECKING:
    from rasa_ram.data.check import CheckReport
    from rasa_ram.data.manifest_faults import Fault, ReadReport
    from rasa_ram.data.records import Record
    from rasa_ram.vocabulary import Vocabulary

app = typer.Typer(help="Convert, check and shard training data.", no_args_is_help=True, add_completion=False)

_SHOWN = 10  # unmapped labels that are named


class Kind(StrEnum):
    """What a source of records is."""

    manifest = "manifest"
    coco_captions = "coco-captions"
    coco_instances = "coco-instances"
    visual_genome = "visual-genome"
    shards = "shards"


_Source = Annotated[
    Path,
    typer.Argument(
        help="Manifest (.json, .jsonl, .parquet), COCO's captions or instances, Visual Genome's folder, .tar or shards."
    ),
]
_Vocabulary = Annotated[Path | None, typer.Option(help="The vocabulary: .json, .csv or .txt.")]
_From = Annotated[Kind | None, typer.Option("--from", help="What SOURCE is; else it is told from its content.")]
_Instances = Annotated[
    Path | None, typer.Option(help="Beside COCO's captions: its instances, whose categories become tags.")
]
_Folder = Annotated[str, typer.Option(help="Put before COCO's file names, such as train2017.")]


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="Manifest (.json, .jsonl, .parquet) or shard (.tar).")],
    *,
    images: Annotated[Path | None, typer.Option(help="Folder of the images; the header of each is read.")] = None,
    vocabulary: _Vocabulary = None,
    report: Annotated[Path | None, typer.Option(help="JSON lines file for every fault.")] = None,
) -> None:
    """Tell every broken record and caption, by kind; exit code 1 if there is one."""
    from rasa_ram.data.check import check_records

    size = None if vocabulary is None else len(_read_vocabulary(vocabulary))
    with _fault_lines(report) as on_fault:
        found = check_records(manifest, images=images, vocabulary_size=size, on_fault=on_fault)
    _print_faults(found.reading)
    _print_totals(found)
    if report is not None:
        emit(str(report))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def convert(
    source: _Source,
    dest: Annotated[Path, typer.Argument(help="The manifest: .json, .jsonl or .parquet.")],
    *,
    kind: _From = None,
    vocabulary: _Vocabulary = None,
    instances: _Instances = None,
    folder: _Folder = "",
    on_bad: OnBad = OnBadRecord.stop,
) -> None:
    """Write the records of any source as a manifest."""
    from rasa_ram.data.manifest import write_records
    from rasa_ram.data.manifest_faults import ReadReport

    found = ReadReport()
    table = None if vocabulary is None else _read_vocabulary(vocabulary)
    records = _records(source, kind or _guess(source), (table, instances, folder), on_bad, found)
    count = write_records(records, dest)
    _say_skipped(found)
    say(f"{count} records in {dest}")
    emit(str(dest))


@app.command()
def shard(
    source: _Source,
    dest: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    *,
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    per_shard: Annotated[int, typer.Option(min=1, help="Records of a shard.")] = 5000,
    kind: _From = None,
    vocabulary: _Vocabulary = None,
    instances: _Instances = None,
    folder: _Folder = "",
    on_bad: OnBad = OnBadRecord.stop,
) -> None:
    """Write records with their images as WebDataset shards; a run that was interrupted goes on.

    A shard from which records were skipped is written again once their images are there.
    """
    from rasa_ram.data.check import check_header
    from rasa_ram.data.manifest_faults import ReadReport
    from rasa_ram.data.shards_images import read_images_from
    from rasa_ram.data.shards_writer import write_shards

    found, written = ReadReport(), ReadReport()
    table = None if vocabulary is None else _read_vocabulary(vocabulary)
    records = _records(source, kind or _guess(source), (table, instances, folder), on_bad, found)
    read_image = read_images_from(images, check=check_header)
    shards = write_shards(
        records, dest, read_image=read_image, per_shard=per_shard, on_bad=on_bad.value, report=written
    )
    _say_skipped(found)
    _say_skipped(written)
    say(f"{sum(part.records for part in shards)} records in {len(shards)} shards")
    emit(str(dest))


def _records(
    source: Path,
    kind: Kind,
    labels: tuple[Vocabulary | None, Path | None, str],
    on_bad: OnBadRecord,
    report: ReadReport,
) -> Iterator[Record]:
    from rasa_ram.data.coco_captions import read_coco
    from rasa_ram.data.manifest import read_records
    from rasa_ram.data.visual_genome import read_visual_genome

    vocabulary, instances, folder = labels
    if instances is not None and kind is not Kind.coco_captions:
        raise InputError(f"--instances goes with COCO's captions, and {source} is {kind.value}; leave it out")
    if folder and kind not in (Kind.coco_captions, Kind.coco_instances):
        raise InputError(f"--folder goes with COCO's files, and {source} is {kind.value}; leave it out")
    if kind is Kind.visual_genome:
        return read_visual_genome(source, vocabulary=vocabulary, on_bad=on_bad.value, report=report)
    if kind in (Kind.coco_captions, Kind.coco_instances):
        captions = source if kind is Kind.coco_captions else None
        instances = instances if kind is Kind.coco_captions else source
        return read_coco(
            captions, instances=instances, vocabulary=vocabulary, folder=folder, on_bad=on_bad.value, report=report
        )
    size = None if vocabulary is None else len(vocabulary)
    if kind is Kind.shards:
        return _shard_records(source, size, on_bad, report)
    return read_records(source, on_bad=on_bad.value, vocabulary_size=size, report=report)


def _shard_records(source: Path, size: int | None, on_bad: OnBadRecord, report: ReadReport) -> Iterator[Record]:
    from rasa_ram.data.shards import read_shard

    paths = sorted(source.glob("*.tar")) if source.is_dir() else [source]
    for path in paths:
        for record, _ in read_shard(path, on_bad=on_bad.value, vocabulary_size=size, report=report):
            yield record


def _guess(source: Path) -> Kind:
    if source.is_dir():
        if (source / "region_descriptions.json").is_file():
            return Kind.visual_genome
        if any(source.glob("*.tar")):
            return Kind.shards
        raise InputError(f"{source} has neither region_descriptions.json nor .tar files; is it the right folder?")
    if source.suffix.lower() == ".tar":
        return Kind.shards
    if source.suffix.lower() == ".json" and _first_character(source) == b"{":
        from rasa_ram.data.coco_captions import has_instances

        return Kind.coco_instances if has_instances(source) else Kind.coco_captions
    return Kind.manifest


def _first_character(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error


def _read_vocabulary(path: Path) -> Vocabulary:
    from rasa_ram.vocabulary_files import read_vocabulary

    return read_vocabulary(path)


@contextmanager
def _fault_lines(path: Path | None) -> Iterator[Callable[[Fault], None] | None]:
    from rasa._files import write_atomically

    if path is None:
        yield None
        return
    with write_atomically(path, text=True, make_folder=True) as file:

        def write(fault: Fault) -> None:
            file.write(json.dumps(fault.to_dict()) + "\n")

        yield write


def _print_faults(found: ReadReport) -> None:
    rows = [(kind, str(count), str(found.examples[kind][0])) for kind, count in found.counts.most_common()]
    if rows:
        print_table(("fault", "times", "first"), rows)


def _print_totals(found: CheckReport) -> None:
    reading, images = found.reading, max(found.reading.records, 1)
    rows = [
        ("good records", f"{reading.records}"),
        ("bad records", f"{reading.bad}"),
        ("bad captions of good records", f"{reading.captions_left_out}"),
        ("captions", f"{found.captions}, {found.captions / images:.2f} an image"),
        ("images with known tags", f"{found.tagged}"),
        ("tags", f"{found.tags}, {found.tags / images:.2f} an image, at most {found.most_tags}"),
    ]
    print_table(("total", "number"), rows)


def _say_skipped(found: ReadReport) -> None:
    for kind, count in found.counts.most_common():
        example = found.examples[kind][0] if kind in found.examples else "by an earlier run"
        say(f"{count} x {kind}, such as {example}")
    if found.unmapped:
        names = ", ".join(f"{name} ({count})" for name, count in found.unmapped.most_common(_SHOWN))
        say(f"{len(found.unmapped)} labels have no tag in the vocabulary, {found.unmapped.total()} times: {names}")
