"""``rasa-ram evaluate``: figures of taggers on the papers' benchmarks, and the papers' tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rasa.cli._console import count_progress, emit, print_table, say
from rasa.errors import InputError

if TYPE_CHECKING:
    from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
    from rasa_ram.evaluation.evaluation import Evaluation
    from rasa_ram.evaluation.harness import Measure, Run

app = typer.Typer(add_completion=False)

_WORST = 10  # classes that are shown; all are in the file


@app.command()
def evaluate(
    names: Annotated[
        list[str] | None, typer.Argument(help="The benchmark; with --tables, files of results. None lists them.")
    ] = None,
    *,
    annotations: Annotated[Path | None, typer.Option(help="Its annotations: a file; a folder for some.")] = None,
    taglist: Annotated[Path | None, typer.Option(help="Its list of classes, where that is a file of its own.")] = None,
    images: Annotated[Path | None, typer.Option(help="Its folder of images; not needed with --predictions.")] = None,
    model: Annotated[str | None, typer.Option(help="ram-swin-l.14m, clip, a detector, a folder, ...")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Scores of something else: .csv, .jsonl or .parquet with image, tag, score.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result, with every class.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a baseline, else the published ones.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="Tags of a model from a file or folder.")] = None,
    open_set: Annotated[bool, typer.Option("--open-set", help="Ask RAM for all classes as unseen ones.")] = False,
    descriptions: Annotated[Path | None, typer.Option(help="JSON: class to sentences, for RAM++ and CLIP.")] = None,
    split: Annotated[
        str | None, typer.Option(help="common or uncommon: the classes that RAM's tags have, or have not.")
    ] = None,
    threshold: Annotated[str, typer.Option(help="Number, published or by-tag.")] = "published",
    top_k: Annotated[int, typer.Option(min=1, help="Classes of an image that blip-itm matches.")] = 64,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images; for a try.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for scores: a run that was killed goes on there.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap for intervals; 0 is none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, for RAM's family.")] = "float32",
    tables: Annotated[bool, typer.Option("--tables", help="Print the papers' tables from files of results.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables here too, as Markdown.")] = None,
) -> None:
    """Evaluate taggers on the benchmarks of the papers.

    Figures are those of the original code, and beside them ours: equal scores and classes without positives handled
    rightly, with intervals. Give --out for a result that --tables can show beside the published figures.
    """
    if tables:
        _print_papers([Path(name) for name in names or ()], markdown)
        return
    if not names:
        _list_benchmarks()
        return
    if len(names) > 1 or annotations is None or (images is not None and predictions is not None):
        raise typer.BadParameter("give one benchmark, --annotations, and either --images with --model or --predictions")
    if predictions is None and model is None:
        raise typer.BadParameter("give --model; for predictions of something else, --predictions")
    from rasa_ram.cli._evaluated import ModelChoice
    from rasa_ram.evaluation.harness import Measure, Run

    limits = _threshold(threshold)
    choice = ModelChoice(
        model or "", weights, vocabulary, open_set=open_set, descriptions=_descriptions(descriptions),
        threshold=limits, top_k=top_k, device=device, dtype=dtype,
    )  # fmt: skip
    benchmark = _open(names[0], annotations, taglist, vocabulary=vocabulary, split=split, limit=limit)
    measure = Measure(limits if isinstance(limits, float) else None, resamples=resamples, seed=seed)
    if predictions is not None:
        result = _of_file(predictions, benchmark, measure, name=model or predictions.stem)
    elif images is not None:
        result = _of_model(choice, benchmark, images, cache=cache, run=Run(batch_size, skip_broken), measure=measure)
    else:
        raise typer.BadParameter("give --images or --predictions")
    if out is not None:
        result.write(out)
    _print_result(result)
    if out is not None:
        emit(str(out))


def _open(
    name: str, annotations: Path, taglist: Path | None, *, vocabulary: Path | None, split: str | None, limit: int | None
) -> Benchmark:
    from rasa_ram.evaluation.benchmarks.known import BENCHMARKS, open_benchmark, split_by_vocabulary
    from rasa_ram.vocabulary_files import read_vocabulary

    ids = name in BENCHMARKS and BENCHMARKS[name].labels == "ids" and vocabulary is not None
    tags = read_vocabulary(vocabulary, allow_repeats=True).names if ids and vocabulary is not None else None
    benchmark = open_benchmark(name, annotations, taglist, vocabulary=tags)
    if split is not None:
        from rasa_ram.published import load_vocabulary

        if split not in {"common", "uncommon"}:
            raise typer.BadParameter(f"--split must be common or uncommon, got {split!r}")
        own = load_vocabulary("ram-swin-l.14m") if vocabulary is None else read_vocabulary(vocabulary)
        benchmark = split_by_vocabulary(benchmark, own.names, common=split == "common")
    if limit is not None:
        rows = range(min(limit, len(benchmark.images)))
        benchmark = benchmark.take_images(rows, note=f"only the first {len(rows)} images: figures do not compare")
    return benchmark


def _of_model(
    choice: Any, benchmark: Benchmark, images: Path, *, cache: Path | None, run: Run, measure: Measure
) -> Evaluation:
    from dataclasses import replace

    from rasa_ram.cli._evaluated import build_predictor
    from rasa_ram.evaluation import harness
    from rasa_ram.evaluation.benchmark_images import BenchmarkImages

    reader = BenchmarkImages(images)  # before the model, which takes long to load
    predictor = build_predictor(choice, benchmark)
    with count_progress(len(benchmark.images), what="scoring") as step:
        return harness.evaluate(
            predictor,
            benchmark,
            images=reader,
            cache=cache,
            run=replace(run, progress=_many(step)),
            measure=measure,
        )


def _many(step: Callable[[], None]) -> Callable[[int], None]:
    def advance(count: int) -> None:
        for _ in range(count):
            step()

    return advance


def _of_file(predictions: Path, benchmark: Benchmark, measure: Measure, *, name: str) -> Evaluation:
    from rasa_ram.evaluation.harness import evaluate_scores
    from rasa_ram.evaluation.predictors.predictions_file import read_predictions

    described = {"model": name, "predictions": predictions.name}
    return evaluate_scores(read_predictions(predictions, benchmark), benchmark, described=described, measure=measure)


def _threshold(text: str) -> float | Literal["published", "by-tag"]:
    named: Mapping[str, Literal["published", "by-tag"]] = {"published": "published", "by-tag": "by-tag"}
    if text in named:
        return named[text]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise typer.BadParameter(f"--threshold must be a number, published or by-tag, got {text!r}")
    return value


def _descriptions(path: Path | None) -> Mapping[str, Sequence[str]] | None:
    """A JSON object, or the list of objects with one class each that RAM++'s authors publish."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {str(error)[:200]}") from error
    parts = content if isinstance(content, list) else [content]
    table = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    if not table or not all(isinstance(texts, list) and texts for texts in table.values()):
        raise InputError(f"{path} must hold an object of classes, each with a list of sentences")
    return table


def _list_benchmarks() -> None:
    from rasa_ram.evaluation.benchmarks.known import BENCHMARKS

    rows = [
        (name, str(known.classes or "any"), str(known.images or "any"), known.reader, "; ".join(known.notes))
        for name, known in BENCHMARKS.items()
    ]
    print_table(("benchmark", "classes", "images", "reader", "notes"), rows)


def _print_result(result: Evaluation) -> None:
    rows = [
        (f"{name}, as the original computes it", _percent(value), _interval(result, f"published_{name}"))
        for name, value in result.published.items()
    ]
    rows += [(name, _percent(value), _interval(result, name)) for name, value in result.figures.items()]
    print_table(("figure", "%", "95 % interval"), rows)
    known = sorted((tag for tag in result.tags if tag.positives), key=lambda tag: tag.average_precision)
    lowest = [(tag.name, str(tag.positives), _percent(tag.average_precision)) for tag in known[:_WORST]]
    print_table(("worst classes", "images", "AP %"), lowest)
    say(f"{result.model} on {result.benchmark}: {result.images} images, {result.classes} classes")
    for count, what in (
        (result.skipped, "images could not be read and are left out"),
        (result.without_positives, "classes have no positives: 0 in the original's means, left out of ours"),
        (result.with_ties, "classes have equal scores whose order matters"),
    ):
        if count:
            say(f"{count} {what}")
    for note in result.notes:
        say(f"note: {note}")


def _interval(result: Evaluation, name: str) -> str:
    interval = result.intervals.get(name)
    return "" if interval is None else f"{_percent(interval.low)} to {_percent(interval.high)}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _print_papers(paths: Sequence[Path], markdown: Path | None) -> None:
    from rasa._files import write_atomically
    from rasa_ram.evaluation.evaluation import read_evaluation
    from rasa_ram.evaluation.tables import compare, to_markdown

    comparisons = compare([read_evaluation(path) for path in paths])
    for comparison in comparisons:
        emit(f"{comparison.title} (published | measured, %)")
        print_table(comparison.columns, comparison.rows)
        for note in comparison.notes:
            emit(f"- {note}")
        emit("")
    if markdown is not None:
        with write_atomically(markdown, text=True, make_folder=True) as file:
            file.write("\n".join(map(to_markdown, comparisons)))
        emit(str(markdown))
