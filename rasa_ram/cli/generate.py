"""``rasa-ram generate``: the data engine's first half."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rasa_ram.cli._engine import (
    BatchSize,
    Device,
    Dtype,
    Images,
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
    weights_of,
)

if TYPE_CHECKING:
    from rasa_ram.captioner import RamCaptioner

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    manifest: Manifest,
    *,
    images: Images,
    model: ModelName,
    out: Out,
    vocabulary: VocabularyFile = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For all tags; else each tag's own of the vocabulary, or 0.68.")
    ] = None,
    captioner: Annotated[
        str | None, typer.Option(help="Adds a caption to each image: a published model, or a file or folder.")
    ] = None,
    captioner_vocabulary: Annotated[Path | None, typer.Option(help="Of the captioner; else its own.")] = None,
    parse: Annotated[bool, typer.Option(help="Add the tags that the added captions name.")] = True,
    truth: TruthFile = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    shard_size: ShardSize = 1024,
    out_format: OutFormat = ManifestFormat.jsonl,
    skip_bad: SkipBad = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Add captions and tags that a trained model generates.

    No tag or caption of MANIFEST is lost; what is added stands behind. OUT gets the new manifest, the origin of each
    tag, and a report. The command can be stopped and started again, and run several times at once on the same OUT.
    """
    from rasa.loading import resolve_device
    from rasa_ram.engine.generate import GenerateSettings, Generation
    from rasa_ram.engine.parse import CaptionParser
    from rasa_ram.engine.runs import generate_into
    from rasa_ram.images import ImageFolder
    from rasa_ram.tagger import RamTagger

    device = resolve_device(device)
    loaded = load_model(model, vocabulary, device=device, dtype=dtype)
    table = loaded.vocabulary
    tagger = RamTagger(
        loaded.model,
        table,
        threshold=threshold,
        deny=loaded.denied,
        batch_size=batch_size,
        provenance=loaded.provenance,
    )
    writer = None if captioner is None else _captioner(captioner, captioner_vocabulary, device, dtype, batch_size)
    work = Generation(
        images=ImageFolder(images),
        tagger=tagger,
        settings=GenerateSettings(names=table.names, batch_size=batch_size),
        captioner=writer,
        parser=CaptionParser(table) if writer is not None and parse else None,
        provenance={"captioner_weights": None if captioner is None else dict(weights_of(captioner))},
    )
    options = run_options(table, out_format, shard_size=shard_size, truth=truth, retry_failed=retry_failed)
    tell(generate_into(records_of(manifest, table, skip_bad=skip_bad), out, work, options), out, options)


def _captioner(source: str, vocabulary: Path | None, device: str, dtype: str, batch_size: int) -> RamCaptioner:
    from rasa_ram.captioner import load_captioner
    from rasa_ram.vocabulary_files import read_vocabulary

    table = None if vocabulary is None else read_vocabulary(vocabulary)
    options: dict[str, Any] = {"device": device, "dtype": dtype, "batch_size": batch_size}
    return load_captioner(source, table, **options)
