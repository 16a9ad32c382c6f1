"""``rasa-ram labels``: a vocabulary from the words of a corpus of captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.cli._console import emit, print_table, say
from rasa.errors import InputError
from rasa_ram.cli._captions import Batch, Model, Processes, captions_of
from rasa_ram.cli._options import OnBad, OnBadRecord

if TYPE_CHECKING:
    from rasa_ram.engine.label_system import LabelSystem
    from rasa_ram.engine.label_system_count import CaptionCounts
    from rasa_ram.text_encoder import TextEncoder

app = typer.Typer(help="Build a label system from captions.", no_args_is_help=True, add_completion=False)

_COUNTS = ".counts.gz"
_SHOWN = 10  # open proposals in the table; all are in the file

_Captions = Annotated[
    list[Path], typer.Argument(help="Manifests (.json, .jsonl, .parquet), .txt files of a caption a line, .counts.gz.")
]
_WordNet = Annotated[
    Path | None,
    typer.Option(help="Folder of WordNet's files, such as /usr/share/wordnet: phrases, kinds, synonyms."),
]
_Capacity = Annotated[int, typer.Option(min=1, help="Words to keep while counting, at most twice as many at a time.")]


@app.command()
def count(
    captions: _Captions,
    *,
    out: Annotated[Path, typer.Option(help=f"The counts, a file that ends in {_COUNTS}.")],
    wordnet: _WordNet = None,
    capacity: _Capacity = 500_000,
    on_bad: OnBad = OnBadRecord.skip,
    model: Model = None,
    processes: Processes = 1,
    batch_size: Batch = 256,
) -> None:
    """Count the words of a part of a corpus, for ``build`` to add up.

    Count a large corpus file by file, on as many machines as there are: a part that was lost is counted again alone.
    """
    from rasa_ram.engine.label_system_count import write_counts

    if not out.name.endswith(_COUNTS):
        raise typer.BadParameter(f"{out} must end in {_COUNTS}, which tells counts from captions")
    counts = _counted(captions, wordnet, capacity, on_bad, model=model, processes=processes, batch_size=batch_size)
    write_counts(counts, out)
    emit(str(out))


@app.command()
def build(
    captions: _Captions,
    *,
    out: Annotated[Path, typer.Option(help="The vocabulary to write: .json or .csv.")],
    top: Annotated[int, typer.Option(min=1, help="Words to keep, before synonyms are merged.")] = 10_000,
    table: Annotated[Path | None, typer.Option(help="CSV file of all merges: made, refused, proposed.")] = None,
    review: Annotated[Path | None, typer.Option(help="Such a table with decisions: accept, reject, or empty.")] = None,
    wordnet: _WordNet = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help='Weights of CLIP ViT-B/16, or "clip" to fetch them: proposes nearest neighbours.'),
    ] = None,
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="Least cosine of such neighbours.")] = 0.95,
    capacity: _Capacity = 500_000,
    on_bad: OnBad = OnBadRecord.skip,
    model: Model = None,
    processes: Processes = 1,
    batch_size: Batch = 256,
) -> None:
    """Build a vocabulary of the most frequent words of captions.

    Inflections and spellings of a word are merged by rule. WordNet and the text encoder only propose: put accept or
    reject into the table's column "decision", and give it back with --review.
    """
    from rasa_ram.engine.label_system import build_label_system
    from rasa_ram.engine.label_system_merges import NO_DECISIONS, read_decisions, write_merges
    from rasa_ram.engine.wordnet import WordNet
    from rasa_ram.vocabulary_files import write_vocabulary

    if out.suffix.lower() not in {".json", ".csv"}:
        raise typer.BadParameter(f"{out} cannot hold kinds and synonyms; choose a name in .json or .csv")
    decisions = NO_DECISIONS if review is None else read_decisions(review)
    encoder = None if text_encoder is None else _encoder(text_encoder)
    senses = None if wordnet is None else WordNet(wordnet)
    counts = _counted(captions, wordnet, capacity, on_bad, model=model, processes=processes, batch_size=batch_size)
    system = build_label_system(
        counts, top=top, decisions=decisions, wordnet=senses, encoder=encoder, threshold=threshold
    )
    write_vocabulary(system.vocabulary, out)
    if table is not None:
        write_merges(system.merges, table)
    _show(system, counts)
    emit(str(out))


def _counted(
    paths: list[Path],
    wordnet: Path | None,
    capacity: int,
    on_bad: OnBadRecord,
    *,
    model: str | None,
    processes: int,
    batch_size: int,
) -> CaptionCounts:
    from rasa_ram.data.manifest import ReadReport
    from rasa_ram.engine.label_system_count import CaptionCounts, count_captions, read_counts
    from rasa_ram.engine.label_system_counter import BoundedCounter
    from rasa_ram.engine.parse import refuse_broken
    from rasa_ram.engine.parse_sentences import MODEL

    counts = CaptionCounts(words=BoundedCounter(capacity), pairs=BoundedCounter(capacity))
    for path in (path for path in paths if path.name.endswith(_COUNTS)):
        counts.merge(read_counts(path))
    texts = [(path, ReadReport()) for path in paths if not path.name.endswith(_COUNTS)]
    if texts:
        lines = (
            line
            for path, report in texts
            for line in refuse_broken(captions_of(path, on_bad=on_bad, report=report), path, report)
        )
        counts.merge(
            count_captions(
                lines, model=model or MODEL, wordnet=wordnet, processes=processes, batch_size=batch_size,
                capacity=capacity,
            )
        )  # fmt: skip
    for problem, number in sorted(counts.problems.items()):
        say(f"{number} captions: {problem}")
    for _, report in texts:
        for fault, number in sorted(report.counts.items()):
            say(f"{number} x {fault}, such as {report.examples[fault][0]}")
    say(f"{counts.captions} captions, {len(counts.words)} words counted")
    if counts.words.error:
        say(f"rare words were forgotten on the way: a count may be {counts.words.error} too low (see --capacity)")
    return counts


def _encoder(source: str) -> TextEncoder:
    if source != "clip" and not Path(source).is_file():
        raise InputError(f'--text-encoder {source} is no file; give the weights of CLIP ViT-B/16, or "clip"')
    from rasa_ram.text_encoder import load_text_encoder

    return load_text_encoder(None if source == "clip" else source)


def _show(system: LabelSystem, counts: CaptionCounts) -> None:
    proposed = [merge for merge in system.merges if not merge.decision]
    if proposed:
        print_table(
            ("proposed", "synonym", "source", "score", "captions"),
            [
                (merge.canonical, merge.other, merge.source, f"{merge.score:.2f}",
                 f"{merge.canonical_count} + {merge.other_count}")
                for merge in sorted(proposed, key=lambda merge: -merge.other_count)[:_SHOWN]
            ],
        )  # fmt: skip
    for one, other in system.unused:
        say(f'the decision on "{one}" and "{other}" was not used: they are not both among the words kept')
    made = sum(merge.decision == "accept" for merge in system.merges)
    if counts.words.error and min(system.counts) <= counts.words.error:
        say("the rarest tags are within the error of the counts: another run might choose others")
    say(f"{len(system.vocabulary)} tags; {made} merges made, {len(proposed)} proposed and open")
