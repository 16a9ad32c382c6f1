"""From a recipe to a trained model: puts together what the other modules of training hold.

    config = load_recipe("pretrain_ram_swin_l_224", ['data.manifests=["coco.json"]', "data.images=photos"])
    report = train(config, out=Path("runs/ram"))

Under torchrun each process calls it with the same arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rasa.errors import ConfigError, InputError
from rasa_ram.data.loader import CaptionTexts, TrainingLoader
from rasa_ram.data.shard_source import ShardLoader
from rasa_ram.tokenizer import CaptionTokenizer
from rasa_ram.training.config import TrainConfig, write_recipe
from rasa_ram.training.data_files import names_of, open_table, require_data, shard_files
from rasa_ram.training.initialise import Start, initialise
from rasa_ram.training.loop import RunReport, StepReport, Trainer
from rasa_ram.training.state import FOLDER
from rasa_ram.training.teacher import Teacher, load_teacher
from rasa_ram.training.update import Updater, join

if TYPE_CHECKING:  # open_clip is not needed where label vectors are in a file
    from rasa_ram.text_encoder import TextEncoder

Source = TrainingLoader | ShardLoader


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """A training, ready to run in this process.

    Attributes:
        config: Its recipe.
        start: The model and where its weights came from.
        source: Batches of this process; ``source.bad`` counts what was left out.
        trainer: The loop.
        main: Whether this process writes files.
    """

    config: TrainConfig
    start: Start
    source: Source
    trainer: Trainer
    main: bool

    def run(self) -> RunReport:
        """Train, the recipe beside what comes of it; see :meth:`Trainer.run`."""
        try:
            return self.trainer.run()
        finally:
            self.source.close()


def train(config: TrainConfig, *, out: Path, resume: bool = False) -> RunReport:
    """Train by a recipe; the shortest way through :func:`prepare`.

    Args:
        config: The recipe.
        out: The run's folder.
        resume: Whether to go on from what it holds.

    Raises:
        ConfigError: If the recipe names no data, or contradicts the data or the run that is resumed.
        RasaError: As :func:`prepare` and :meth:`Trainer.run`.
    """
    return prepare(config, out=out, resume=resume).run()


def prepare(
    config: TrainConfig,
    *,
    out: Path,
    resume: bool = False,
    teacher: Teacher | None = None,
    load_encoder: Callable[[], TextEncoder] | None = None,
    progress: Callable[[StepReport], None] | None = None,
) -> Training:
    """Make everything that a training needs: model, data, teacher, loop.

    Args:
        config: The recipe.
        out: The run's folder.
        resume: Whether to go on from what it holds.
        teacher: What RAM and RAM++ learn from; None loads CLIP where the recipe asks for a teacher.
        load_encoder: Gives the text encoder of label vectors; None loads that of the
            recipe where it is needed.
        progress: Called after each step, in the main process alone.

    Raises:
        ConfigError: If the recipe names no data, contradicts them, or ``out`` holds a run and ``resume`` is False.
        CheckpointError: If weights are damaged or do not fit.
        FormatError, InputError: If the data are malformed or too few.
        WeightsError: If something has to be fetched and cannot be.
    """
    require_data(config.data)
    if not resume and (out / FOLDER).exists():
        raise ConfigError(f"{out} holds a training already; resume it, or train in another folder")
    start = initialise(config.model, seed=config.run.seed, load_encoder=load_encoder)
    processes = join(start.model, config.run)
    source = open_source(config, start, rank=processes.rank, ranks=processes.count)
    trainer = Trainer(
        start.model,
        source,
        schedule=config.schedule.build(config.run.epochs),
        settings=config.run,
        out=out,
        teacher=_teacher(config, teacher),
        vocabulary=start.vocabulary,
        resume=resume,
        data=names_of(config.data),
        # A resume that is refused must leave the run's own recipe as it is.
        begun=partial(write_recipe, config, out),
        progress=progress,
    )
    return Training(config=config, start=start, source=source, trainer=trainer, main=processes.main)


def open_source(config: TrainConfig, start: Start, *, rank: int = 0, ranks: int = 1) -> Source:
    """Open the data of a recipe for one process.

    Raises:
        ConfigError: If the captioner's vocabulary has another size than the model.
        FormatError, InputError: If the data are malformed or too few.
    """
    data = config.data
    texts = "text_features" in config.parts
    settings = data.loader_settings(num_tags=len(start.vocabulary), seed=config.run.seed, texts=texts)
    captions = _caption_texts(config, start) if "captions" in config.parts else None
    if data.shards:
        return ShardLoader(shard_files(data), settings=settings, captions=captions, rank=rank, ranks=ranks)
    records = open_table(data, len(start.vocabulary), warn=rank == 0)
    if len(records) and not records.has_tags:
        raise InputError(
            f"no record of {', '.join(map(str, data.manifests))} has a tag, so all would be trained as absent; parse "
            "the captions first: rasa-ram parse"
        )
    return TrainingLoader(records, data.images or ".", settings=settings, captions=captions, rank=rank, ranks=ranks)


def measure_speed(training: Training, *, steps: int) -> float:
    """Train for a few steps and forget them: images per second, of all processes, data loading included.

    Args:
        training: From :func:`prepare`. Its weights are changed; make another one to train.
        steps: Steps that count, at least 1; one more comes first.

    Raises:
        ConfigError: If an epoch is shorter.
        NotFiniteError: If a loss is not finite.
    """
    settings, trainer = training.config.run, training.trainer
    if (steps + 1) * settings.accumulate > len(training.source):
        raise ConfigError(f"an epoch has {len(training.source)} batches, too few to time {steps} steps; time fewer")
    processes = join(trainer.model, settings)
    updater = Updater(trainer.model, settings=settings, processes=processes, teacher=trainer.teacher)
    batches = training.source.batches(0)
    try:
        for step in range(steps + 1):
            group = list(islice(batches, settings.accumulate))
            updater.update(group, rate=0.0)
            if step == 0:
                began = time.perf_counter()
        images = steps * settings.accumulate * training.config.data.batch_size * processes.count
        return images / (time.perf_counter() - began)
    finally:
        training.source.close()


def _teacher(config: TrainConfig, given: Teacher | None) -> Teacher | None:
    if not {"image_features", "text_features"} & set(config.parts):
        return None
    return load_teacher(config.model.teacher) if given is None else given


def _caption_texts(config: TrainConfig, start: Start) -> CaptionTexts:
    path, text = config.model.wordpieces, start.model.config.text
    tokenizer = CaptionTokenizer.published() if path is None else CaptionTokenizer.read(path)
    if text is None or len(tokenizer) != text.vocab_size:
        size = None if text is None else text.vocab_size
        raise ConfigError(f"model.text.vocab_size is {size}, and the captioner's vocabulary has {len(tokenizer)} words")
    return CaptionTexts(tokenizer=tokenizer, tag_names=start.vocabulary.names, prompt=config.data.prompt)
