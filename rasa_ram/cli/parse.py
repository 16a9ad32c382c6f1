"""``rasa-ram parse``: the tags that the captions of a manifest name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rasa.cli._console import emit, print_table, say
from rasa_ram.cli._captions import Batch, Model, Processes
from rasa_ram.cli._options import OnBad, OnBadRecord

app = typer.Typer(add_completion=False)

_SHOWN = 10  # dropped words in the table; the report has more


@app.command()
def parse(
    manifest: Annotated[Path, typer.Argument(help="The captions: .json, .jsonl or .parquet.")],
    *,
    vocabulary: Annotated[Path, typer.Option(help="The vocabulary: .json, .csv or .txt.")],
    out: Annotated[Path, typer.Option(help="The manifest to write: .json, .jsonl or .parquet.")],
    report: Annotated[Path | None, typer.Option(help="JSON file of what was found and dropped.")] = None,
    on_bad: OnBad = OnBadRecord.skip,
    model: Model = None,
    processes: Processes = 1,
    batch_size: Batch = 256,
) -> None:
    """Parse captions into tags.

    Each caption gets a row of the tags that it names, each image their union; tags that the manifest had before are
    replaced. What a caption denies ("no people") gives no tag.
    """
    from rasa._files import write_atomically
    from rasa_ram.data.manifest import ReadReport, read_records, write_records
    from rasa_ram.engine.parse import CaptionParser, ParseReport, parse_records, refuse_broken
    from rasa_ram.engine.parse_sentences import MODEL
    from rasa_ram.vocabulary_files import read_vocabulary

    parser = CaptionParser(
        read_vocabulary(vocabulary), model=model or MODEL, processes=processes, batch_size=batch_size
    )
    counted, read = ParseReport(), ReadReport()
    records = refuse_broken(read_records(manifest, on_bad=on_bad.value, report=read), manifest, read)
    written = write_records(parse_records(records, parser, report=counted), out)
    found = {"records": written, "records_skipped": dict(read.counts), **counted.to_dict()}
    if report is not None:
        with write_atomically(report, text=True) as file:
            file.write(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    print_table(("not in the vocabulary", "times"), [(w, str(n)) for w, n in counted.words.top(_SHOWN)])
    for problem, number in sorted(counted.problems.items()):
        say(f"{number} captions: {problem}")
    for fault, number in sorted(read.counts.items()):
        say(f"{number} x {fault}, such as {read.examples[fault][0]}")
    dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(counted.dropped.items())) or "none"
    say(f"{counted.tags} tags in {counted.with_tags} of {counted.captions} captions; words dropped: {dropped}")
    emit(str(out))
