"""``rasa-ram finetune``: a trained model learns the tags of somebody's photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rasa.cli._console import emit, print_table, say

if TYPE_CHECKING:
    from rasa_ram.modeling.ram import Ram
    from rasa_ram.text_encoder import TextEncoder
    from rasa_ram.training.own_tags_report import FineTuneReport, OwnTagReport
    from rasa_ram.vocabulary import Vocabulary

app = typer.Typer(add_completion=False)

_SHOWN = 30  # tags in the table; all are in the report


@app.command()
def finetune(
    photos: Annotated[
        Path, typer.Argument(help="A folder with a folder per tag, or with text files of tags; or a CSV file.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="The new folder of the model.")],
    model: Annotated[str, typer.Option(help="A published model's name, or a file or folder of weights.")] = (
        "ram-plus-swin-l.14m"
    ),
    vocabulary: Annotated[
        Path | None, typer.Option(help="Tags of the model, where it is a file: .json, .csv or .txt.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Where the paths in a CSV file begin; else beside it.")] = None,
    learn: Annotated[
        str, typer.Option(help="What learns: vectors (of these tags alone; others stay as they are), head, or all.")
    ] = "head",
    replace: Annotated[bool, typer.Option("--replace", help="Leave out the model's other tags.")] = False,
    complete: Annotated[
        bool, typer.Option("--complete", help="The photos name all tags of the model that are to be seen.")
    ] = False,
    validation: Annotated[float, typer.Option(help="Share of the photos to check on, in [0, 1).")] = 0.2,
    min_examples: Annotated[int, typer.Option(help="Photos to check on for a tag to get a threshold.")] = 3,
    text_encoder: Annotated[
        str | None, typer.Option(help="For new tags: clip or minilm; else what the size of the model's vectors tells.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the recipe finetune_own_tags, as run.epochs=5.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Teach a model your own tags.

    New tags begin with what the model knows of their names. At the end, each tag gets the threshold that was best on
    the photos that were kept back to check on, and the folder is ready for `rasa_ram.load_tagger`.
    """
    from rasa_ram.cli._progress import training_progress
    from rasa_ram.data.own_tags import read_tagged_photos, tag_counts
    from rasa_ram.training.own_tags import fine_tune, own_tags_settings
    from rasa_ram.training.widen import new_tags

    if text_encoder not in {None, "clip", "minilm"}:
        raise typer.BadParameter(f"--text-encoder must be clip or minilm, got {text_encoder}")
    settings = own_tags_settings(
        set_ or (), learn=learn, keep_old=not replace, complete=complete, validation=validation,
        min_examples=min_examples,
    )  # fmt: skip
    tagged = read_tagged_photos(photos)
    trained, tags = _load(model, vocabulary)
    # Fetched only where it is asked: a tag that the model knows needs none.
    asked = trained.config.family != "tag2text" and new_tags(tag_counts(tagged), tags)
    encoder = _encoder(text_encoder, trained.config.label_width) if asked else None
    folder = images or (photos if photos.is_dir() else photos.parent)
    with training_progress() as progress:
        report = fine_tune(
            trained, tags, tagged, folder, encoder=encoder, settings=settings, out=out, resume=resume, progress=progress
        )
    if report.run.interrupted:
        say(f"interrupted after {report.run.steps} steps; the same command with --resume goes on")
        raise typer.Exit(130)
    _show(report)
    emit(str(out))


def _load(model: str, vocabulary: Path | None) -> tuple[Ram, Vocabulary]:
    from rasa_ram.checkpoint import load
    from rasa_ram.published import model_tags
    from rasa_ram.vocabulary_files import read_vocabulary

    tags = model_tags(model, None if vocabulary is None else read_vocabulary(vocabulary))
    return load(model), tags.vocabulary


def _encoder(name: str | None, width: int) -> TextEncoder:
    from rasa_ram.sentence_encoder import load_sentence_encoder
    from rasa_ram.text_encoder import load_text_encoder

    minilm = name == "minilm" or (name is None and width == 384)
    return load_sentence_encoder() if minilm else load_text_encoder()


def _show(report: FineTuneReport) -> None:
    order = sorted(report.tags, key=lambda tag: (-tag.photos[0], tag.name))
    print_table(("tag", "photos", "AP before", "AP after", "threshold", "F1"), [_row(tag) for tag in order[:_SHOWN]])
    if report.unreadable:
        say(f"photos that could not be read: {len(report.unreadable)}, such as {report.unreadable[0]}")
    before, after = report.mean("before"), report.mean("after")
    if after is not None:
        say(f"mean average precision {_figure(before)} -> {_figure(after)} on the photos kept back")


def _row(tag: OwnTagReport) -> tuple[str, ...]:
    name = f"{tag.name} (new)" if tag.new else tag.name
    photos = f"{tag.photos[0]} + {tag.photos[1]}"
    return (name, photos, _figure(tag.before), _figure(tag.after), _figure(tag.threshold), _figure(tag.f1))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
