"""Fine-tuning on one's own tags: from a trained model and photos with tags to a model that knows them.

    photos = read_tagged_photos(Path("my-photos"))
    report = fine_tune(
        model, vocabulary, photos, "my-photos",
        encoder=load_text_encoder(), settings=own_tags_settings(), out=Path("runs/mine"),
    )
    tagger = rasa_ram.load_tagger("runs/mine")

What learns is a choice. ``"vectors"``: the label vectors of the given tags and nothing else; since no tag's score
depends on which others are asked, all other tags score exactly as before. ``"head"``: the tag decoder and all between
it and the image encoder. ``"all"``: the image encoder too. With the latter two, photos that do not tell of a tag are
taken to have it where the model found it before (:mod:`rasa_ram.training.self_labels`).
"""  # fmt: skip

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from rasa.errors import ConfigError
from rasa.ops.thresholds import TunedThresholds, tune_thresholds
from rasa_ram._fingerprint import weights_hash
from rasa_ram.data.loader import TrainingLoader
from rasa_ram.data.own_tags import TaggedPhoto, name_to_rows, split_photos, tag_counts, to_records
from rasa_ram.data.samples import BatchSource
from rasa_ram.images import ImageFolder
from rasa_ram.modeling.ram import Ram
from rasa_ram.tagger import OPEN_THRESHOLD
from rasa_ram.training.config import DataSettings, ScheduleSettings, recipe_values
from rasa_ram.training.data_files import names_of, names_of_photos
from rasa_ram.training.loop import StepReport, Trainer
from rasa_ram.training.own_tags_report import (
    Checked,
    FineTuneReport,
    OwnTagReport,
    check_tags,
    photos_per_row,
    with_chosen,
    write_report,
)
from rasa_ram.training.self_labels import OwnTags, SelfLabelled
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.toml_values import read_table
from rasa_ram.training.widen import Widened, widen
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import VOCABULARY, write_vocabulary

if TYPE_CHECKING:  # open_clip is not needed for an encoder of the caller's own
    from rasa_ram.text_encoder import TextEncoder

# The recipe whose [data], [schedule] and [run] are the defaults here.
RECIPE = "finetune_own_tags"
# Name of the report in a run's folder.
REPORT = "own-tags.json"

Learn = Literal["vectors", "head", "all"]

# The recipe's rates are those of the head. Vectors of length 1 must move far, each alone; a trained image encoder
# little: a twentieth is the published 5e-6.
RATES: dict[Learn, float] = {"vectors": 100.0, "head": 1.0, "all": 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTagsSettings:
    """How to fine-tune.

    Attributes:
        learn: What learns; see the module.
        keep_old: Whether the model's other tags stay.
        complete: Whether the photos' tags are complete, so that every tag of the model that a photo does not name is
            absent from it. Else that holds only for the tags that some photo names.
        validation: Share of the photos to check on and to choose thresholds with, in [0, 1).
        min_examples: Photos with a tag, among those to check on, for it to get a threshold of its own.
        data: Batches; ``views.size`` does not count, the model's is taken.
        schedule: Learning rates of ``"head"``; others are multiplied by :data:`RATES`.
        run: Epochs, precision and so on; ``parts`` does not count.

    Raises:
        ConfigError: If a value is out of range.
    """

    learn: Learn = "head"
    keep_old: bool = True
    complete: bool = False
    validation: float = 0.2
    min_examples: int = 3
    data: DataSettings
    schedule: ScheduleSettings
    run: RunSettings

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ConfigError(f"validation must be in [0, 1), got {self.validation}")
        if self.learn not in RATES:
            raise ConfigError(f"learn must be one of {', '.join(RATES)}, got {self.learn!r}")
        if self.min_examples < 1:
            raise ConfigError(f"min_examples must be at least 1, got {self.min_examples}")


def own_tags_settings(overrides: Iterable[str] = (), **options: Any) -> OwnTagsSettings:
    """The settings of the recipe ``finetune_own_tags``.

    Args:
        overrides: ``key=value`` for its tables ``data``, ``schedule`` and ``run``, such as ``"run.epochs=5"``.
        options: The other fields of :class:`OwnTagsSettings`.

    Raises:
        ConfigError: If a key is unknown or a value wrong.
    """
    values = recipe_values(RECIPE, overrides)
    return OwnTagsSettings(
        data=read_table(DataSettings, values["data"], key="data"),
        schedule=read_table(ScheduleSettings, values["schedule"], key="schedule"),
        run=read_table(RunSettings, values["run"], key="run"),
        **options,
    )


def fine_tune(  # noqa: PLR0913  (a model is its weights and its vocabulary; photos are a list and a folder)
    model: Ram,
    vocabulary: Vocabulary,
    photos: Sequence[TaggedPhoto],
    images: str | os.PathLike[str],
    *,
    encoder: TextEncoder | None,
    settings: OwnTagsSettings,
    out: Path,
    resume: bool = False,
    progress: Callable[[StepReport], None] | None = None,
) -> FineTuneReport:
    """Fine-tune a model on photos with tags, in one process; nothing of ``model`` is changed.

    ``out`` gets what :class:`rasa_ram.training.loop.Trainer` writes, with chosen thresholds in ``vocabulary.json``,
    and ``own-tags.json`` with the report.

    Args:
        model: Of any family, on the CPU.
        vocabulary: Its tags.
        photos: With their tags, at least one of which some photo has.
        images: The folder that the photos' paths are relative to.
        encoder: Made the model's label vectors; None where no tag is new, and for Tag2Text.
        settings: How.
        out: The run's folder.
        resume: Whether to go on with what ``out`` holds.
        progress: Called after each step.

    Raises:
        ConfigError: If ``out`` holds a run that this one does not go on with, or there are several processes.
        InputError: If no photo has a tag, or the vocabulary or the text encoder does not fit the model.
        OutputError: If a file cannot be written.
        TrainingError: If a loss is not finite.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("fine-tuning on own tags runs in one process; start it without torchrun")
    learning, checking = split_photos(photos, share=settings.validation, seed=settings.run.seed)
    settings = _fitting(settings, model, photos=len(learning))
    wide = _widened(model, vocabulary, photos, encoder=encoder, settings=settings)
    own = own_rows(photos, wide.vocabulary)
    check = partial(check_tags, wide.model, wide.vocabulary, checking, ImageFolder(images), rows=own)
    before, frozen = check(), deepcopy(wide.model)
    _choose_what_learns(wide.model, own, settings.learn)
    batches = settings.data.loader_settings(num_tags=len(wide.vocabulary), seed=settings.run.seed)
    loader = TrainingLoader(to_records(learning, wide.vocabulary), images, settings=batches)
    run = Trainer(
        wide.model,
        _source(loader, own, frozen=frozen, vocabulary=wide.vocabulary, settings=settings),
        schedule=settings.schedule.build(settings.run.epochs),
        settings=settings.run,
        out=out,
        vocabulary=wide.vocabulary,
        resume=resume,
        data=_names(model, settings) | names_of_photos(learning, checking, wide.vocabulary),
        progress=progress,
    ).run()
    if run.interrupted:
        return FineTuneReport(run=run)
    wide.model.eval()
    after = check()
    tuned = tune_thresholds(after.scores, after.truth, min_positives=settings.min_examples)
    chosen = with_chosen(wide.vocabulary, own, tuned)
    write_vocabulary(chosen, out / VOCABULARY)
    counts = [photos_per_row(part, chosen) for part in (learning, checking)]
    tags = _tag_reports(replace(wide, vocabulary=chosen), own, tuned, checks=(before, after), counts=counts)
    left_out = [sample.name for sample in loader.bad.examples]
    report = FineTuneReport(run=run, tags=tags, unreadable=(*after.unreadable, *left_out))
    write_report(report, out / REPORT)
    return report


def own_rows(photos: Iterable[TaggedPhoto], vocabulary: Vocabulary) -> list[int]:
    """Positions in the vocabulary of the tags that some photo has, sorted."""
    rows = name_to_rows(vocabulary)
    return sorted({row for tag in tag_counts(photos) for row in rows[tag]})


def _fitting(settings: OwnTagsSettings, model: Ram, *, photos: int) -> OwnTagsSettings:
    """The settings with what follows from the model and the number of photos to learn from."""
    data, run = settings.data, settings.run
    views = replace(data.views, size=model.config.vision.image_size, teacher_size=None)
    # At least two batches, so that an epoch does not leave out nearly half of a few photos.
    data = replace(data, views=views, batch_size=max(1, min(data.batch_size, photos // 2)))
    decay = 0.0 if settings.learn == "vectors" else run.weight_decay  # decay would move the vectors of other tags
    schedule, factor = settings.schedule, RATES[settings.learn]
    floor = None if schedule.floor is None else schedule.floor * factor
    schedule = replace(schedule, peak=schedule.peak * factor, floor=floor, warmup_start=schedule.warmup_start * factor)
    return replace(settings, data=data, schedule=schedule, run=replace(run, parts=(), weight_decay=decay))


def _names(model: Ram, settings: OwnTagsSettings) -> dict[str, str]:
    """What must be the same when a run goes on, besides the photos, their tags and what the trainer compares itself."""
    choices = {name: str(getattr(settings, name)) for name in ("learn", "keep_old", "complete", "validation")}
    return {**names_of(settings.data), **choices, "model": weights_hash(model)}


def _widened(
    model: Ram,
    vocabulary: Vocabulary,
    photos: Sequence[TaggedPhoto],
    *,
    encoder: TextEncoder | None,
    settings: OwnTagsSettings,
) -> Widened:
    # An image encoder that does not learn gets no noise either.
    drop_path = None if settings.learn == "all" else 0.0
    tags = list(tag_counts(photos))
    wide = widen(model, vocabulary, tags, encoder=encoder, keep_old=settings.keep_old, drop_path=drop_path)
    gpu = settings.run.device == "cuda" or (settings.run.device == "auto" and torch.cuda.is_available())
    wide.model.to("cuda" if gpu else "cpu")
    return wide


def _choose_what_learns(model: Ram, own: Sequence[int], learn: Learn) -> None:
    model.requires_grad_(learn != "vectors")
    if learn == "vectors":
        names = ["label_embedding.vectors"]
        names += ["fc.weight", "fc.bias"] if model.config.family == "tag2text" else []
        for name in names:
            _learn_rows(model.get_parameter(name), own, tags=model.config.num_tags)
        return
    model.visual_encoder.requires_grad_(learn == "all")
    if model.config.family != "tag2text":
        model.label_embedding.vectors.requires_grad_(False)


def _learn_rows(parameter: Tensor, own: Sequence[int], *, tags: int) -> None:
    """Let only the rows of some tags learn: AdamW leaves alone what never had a gradient and does not decay."""
    mask = torch.zeros(tags, dtype=torch.bool)
    mask[list(own)] = True
    rows = mask.repeat_interleave(len(parameter) // tags).view(-1, *[1] * (parameter.ndim - 1))
    parameter.requires_grad_(True)
    parameter.register_hook(lambda gradient: gradient * rows.to(gradient.device))


def _source(
    loader: BatchSource, own: Sequence[int], *, frozen: Ram, vocabulary: Vocabulary, settings: OwnTagsSettings
) -> BatchSource:
    if settings.complete or len(own) == len(vocabulary):
        return loader
    source = OwnTags(loader, own, num_tags=len(vocabulary))
    if settings.learn == "vectors":
        return source
    decisive = vocabulary if vocabulary.thresholds is not None else vocabulary.with_thresholds(OPEN_THRESHOLD)
    return SelfLabelled(source, frozen, decisive)


def _tag_reports(
    wide: Widened,
    own: Sequence[int],
    tuned: TunedThresholds,
    *,
    checks: tuple[Checked, Checked],
    counts: Sequence[Sequence[int]],
) -> tuple[OwnTagReport, ...]:
    thresholds = wide.vocabulary.thresholds
    new, guesses = set(wide.new_rows.tolist()), wide.model.config.family != "tag2text"
    before, after = (check.precisions for check in checks)
    return tuple(
        OwnTagReport(
            name=wide.vocabulary.names[row],
            new=row in new,
            photos=(counts[0][row], counts[1][row]),
            before=before[column] if guesses or row not in new else None,
            after=after[column],
            threshold=OPEN_THRESHOLD if thresholds is None else float(thresholds[row]),
            f1=None if np.isnan(tuned.thresholds[column]) else float(tuned.f1[column]),
        )
        for column, row in enumerate(own)
    )
