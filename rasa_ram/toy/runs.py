"""Training the toy RAM with the trainer, the losses and the loader of the full-size ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rasa_ram.data.loader import CaptionTexts, LoaderSettings, TrainingLoader, Views
from rasa_ram.data.records import Record
from rasa_ram.modeling.ram import Ram
from rasa_ram.toy.data import DrawnImages
from rasa_ram.toy.drawing import SIDE
from rasa_ram.toy.wordpieces import toy_tokenizer
from rasa_ram.training.loop import RunReport, RunSettings, StepReport, Trainer
from rasa_ram.training.schedule import CosineDecay, LinearWarmup, Schedule
from rasa_ram.training.teacher import Teacher
from rasa_ram.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyRun:
    """How long and how fast the toy RAM learns; the same numbers as ``recipes/toy.toml`` unless changed.

    Attributes:
        epochs: Times the scenes are seen.
        batch_size: Scenes of an update.
        peak: Highest learning rate; it falls along a cosine, epoch by epoch.
        warmup_steps: Updates of the straight rise at the start, cut off at the end of the first epoch.
        seed: Of the order and the flips.
    """

    epochs: int = 12
    batch_size: int = 32
    peak: float = 1e-3
    warmup_steps: int = 100
    seed: int = 0

    @property
    def schedule(self) -> Schedule:
        """Learning rates."""
        warmup = LinearWarmup(start=0.0, steps=self.warmup_steps) if self.warmup_steps else None
        return Schedule(decay=CosineDecay(peak=self.peak, floor=0.0, epochs=self.epochs), warmup=warmup)


def train_toy(  # noqa: PLR0913  (each is an independent choice)
    model: Ram,
    vocabulary: Vocabulary,
    records: Sequence[Record],
    *,
    images: DrawnImages,
    run: ToyRun,
    out: Path,
    teacher: Teacher | None = None,
    captions: bool = False,
    progress: Callable[[StepReport], None] | None = None,
) -> RunReport:
    """Train a toy model on records.

    Args:
        model: From :func:`rasa_ram.toy.model.draw_toy_model`, or one trained before; its weights change.
        vocabulary: One tag per row of the model.
        records: Of toy scenes.
        images: Draws them.
        run: How long and how fast.
        out: The run's folder, which must not hold a run.
        teacher: Whose image features are learned too; None learns none.
        captions: Whether captions are learned too.
        progress: Called after each step.

    Raises:
        ConfigError: If ``out`` holds a run, or the model has no captioner and captions are to be learned.
        InputError: If there are fewer records than a batch.
        TrainingError: If a loss is not finite.
    """
    parts = [*(["captions"] if captions else []), *(["image_features"] if teacher is not None else [])]
    texts = CaptionTexts(tokenizer=toy_tokenizer(), tag_names=vocabulary.names) if captions else None
    views = Views(
        size=SIDE, teacher_size=None if teacher is None else SIDE, scale=(1.0, 1.0), ratio=(1.0, 1.0), operations=0
    )
    settings = LoaderSettings(batch_size=run.batch_size, num_tags=len(vocabulary), seed=run.seed, views=views)
    source = TrainingLoader(records, images, settings=settings, captions=texts)
    trainer = Trainer(
        model,
        source,
        schedule=run.schedule,
        settings=RunSettings(
            epochs=run.epochs, parts=tuple(parts), seed=run.seed, device="cpu", save_every=10**9, keep=1, log_every=50
        ),
        out=out,
        teacher=teacher,
        vocabulary=vocabulary,
        progress=progress,
    )
    return trainer.run()
