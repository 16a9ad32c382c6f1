"""``rasa tune``: thresholds for the tags of a vocabulary, chosen on photos that somebody labelled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.cli._console import emit, print_table, say
from rasa.errors import InputError

if TYPE_CHECKING:
    from rasa.arrays import FloatArray
    from rasa.types import Tags
    from rasa_ram.vocabulary import Vocabulary

app = typer.Typer(add_completion=False)

_SHOWN = 20  # tags in the table; all are in the file


@app.command()
def tune(
    source: Annotated[
        Path, typer.Argument(help="A labelled dataset; or a CSV file with the columns path, tag, score.")
    ],
    *,
    truth: Annotated[Path, typer.Option(help="CSV file: path (or id, or file_name) and tag, a row for each tag.")],
    vocabulary: Annotated[Path, typer.Option(help="The vocabulary: .json, .csv or .txt.")],
    out: Annotated[Path | None, typer.Option(help="Where it goes; else the .json or .csv file is replaced.")] = None,
    run: Annotated[str | None, typer.Option(help="Run of the dataset; else the current one.")] = None,
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Find the most at this precision; else the best F1 is sought.")
    ] = None,
    min_examples: Annotated[int, typer.Option(min=1, help="Photos with a tag for it to get a threshold.")] = 3,
    default_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For other tags, where the vocabulary has no thresholds.")
    ] = None,
) -> None:
    """Choose a threshold for each tag on labelled photos.

    Every photo of --truth must have its tags there in full: what is not there counts as absent. Label the dataset with
    a low --tag-threshold first: below the lowest score that was kept nothing is known, and nothing is chosen. Tags
    with too few examples, or for which --precision cannot be reached, keep their threshold.
    """
    from rasa.labelling.tune import read_truth, score_table
    from rasa.ops.thresholds import threshold_quality, tune_thresholds
    from rasa_ram.vocabulary_files import read_vocabulary, write_vocabulary

    target = vocabulary if out is None else out
    if target.suffix.lower() not in {".json", ".csv"}:
        raise typer.BadParameter(f"{target} cannot hold thresholds; give --out with a name in .json or .csv")
    table, thresholds = _with_thresholds(read_vocabulary(vocabulary), vocabulary, default_threshold)
    names = list(dict.fromkeys(table.names))
    wanted = {image: _own_names(tags, table) for image, tags in read_truth(truth).items()}
    scores, there = score_table(_tags_of(source, run), wanted, names)
    tuned = tune_thresholds(scores, there, objective=precision or "f1", min_positives=min_examples)
    chosen = {name: float(value) for name, value in zip(names, tuned.thresholds, strict=True) if not math.isnan(value)}
    write_vocabulary(table.with_thresholds(chosen), target)
    before = thresholds[[table.positions([name])[0] for name in names]]
    old = threshold_quality(scores, there, before)
    order = sorted((i for i, name in enumerate(names) if name in chosen), key=lambda i: (-tuned.positives[i], names[i]))
    print_table(
        ("tag", "photos", "threshold", "F1", "precision", "recall"),
        [
            (names[i], str(tuned.positives[i]), f"{before[i]:.3f} -> {chosen[names[i]]:.3f}",
             f"{old[i]:.3f} -> {tuned.f1[i]:.3f}", f"{tuned.precision[i]:.3f}", f"{tuned.recall[i]:.3f}")
            for i in order[:_SHOWN]
        ],
    )  # fmt: skip
    unknown = sorted(frozenset().union(*wanted.values()) - set(names))
    if unknown:
        say(f"{len(unknown)} tags of {truth} are not in the vocabulary, such as {unknown[0]!r}")
    kept = int((tuned.positives > 0).sum()) - len(chosen)
    say(f"{len(chosen)} of {len(names)} tags have a threshold from {len(wanted)} photos; {kept} with examples have not")
    emit(str(target))


def _with_thresholds(table: Vocabulary, path: Path, default: float | None) -> tuple[Vocabulary, FloatArray]:
    full = table if default is None or table.thresholds is not None else table.with_thresholds(default)
    if full.thresholds is None:
        raise InputError(f"{path} has no thresholds for the tags that get none here; give --default-threshold")
    return full, full.thresholds


def _own_names(tags: frozenset[str], table: Vocabulary) -> frozenset[str]:
    """Synonyms by the name of their tag."""
    own = {word: name for name, row in zip(table.names, table.synonyms or (), strict=False) for word in row}
    return frozenset(tag if tag in table else own.get(tag, tag) for tag in tags)


def _tags_of(source: Path, run: str | None) -> Iterator[tuple[Sequence[str], Tags]]:
    import numpy as np

    from rasa.labelling.dataset import open_dataset
    from rasa.labelling.tune import read_scores
    from rasa.types import Tags

    if source.is_dir():
        for image in open_dataset(source, run=run).rows():
            if image.ok:
                # Without the masks, which take longer to decode than all else.
                scores = np.array([tag["score"] for tag in image.row.tags], np.float32)
                keys = (image.id, image.path, image.file_name, Path(image.path).name)
                yield keys, Tags(tuple(tag["name"] for tag in image.row.tags), scores)
    elif run is not None:
        raise InputError(f"--run is about a dataset, and {source} is none; leave it out")
    else:
        yield from read_scores(source)
