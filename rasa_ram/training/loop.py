"""The training loop: RAM, RAM++ and Tag2Text run in the same one and differ in their losses alone.

    trainer = Trainer(
        model,  # Ram, with its label vectors; built or loaded on the CPU in every process
        source,  # BatchSource of this process
        schedule=load_recipe("pretrain_ram_swin_l_224").schedule.build(epochs=5),
        settings=RunSettings(epochs=5, precision="bfloat16", clip_norm=1.0),
        out=Path("runs/ram"),
        teacher=load_teacher(),  # for RAM and RAM++
        vocabulary=vocabulary,  # goes beside the weights
    )
    report = trainer.run()
    tagger = rasa_ram.load_tagger(report.weights.parent)

``Trainer(..., resume=True)`` goes on from the newest whole checkpoint in ``out``, exactly; it begins anew if there is
none. Rates and ``clip_norm`` may be others from there on, which is warned of and kept in the checkpoints. Ctrl-C and
SIGTERM end the run after the step, with a checkpoint (``report.interrupted``).

Several processes, on one machine or many that share the folder ``out``: ``torchrun --nproc-per-node 8 ...``. Each
makes its own source, which must know this process's number and their count: ``Processes.join(settings.device)`` tells
both (``rank``, ``count``).

``out`` holds ``log.jsonl``, ``checkpoints/``, ``failed/`` if a loss was not finite, and, at the end, ``config.json``,
``model.safetensors``, ``vocabulary.json``, and in ``average/`` the same of the moving average.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from rasa.errors import ConfigError, RasaWarning, TrainingError
from rasa_ram.checkpoint import save
from rasa_ram.data.samples import BatchSource, Samples, reading
from rasa_ram.modeling.ram import Ram
from rasa_ram.training.distributed import Processes
from rasa_ram.training.ema import MovingAverage
from rasa_ram.training.failure import NotFiniteError, save_failed
from rasa_ram.training.interrupt import Interrupt
from rasa_ram.training.log import RunLog, StepReport, memory_gib
from rasa_ram.training.objective import PARTS
from rasa_ram.training.resume import (
    AVERAGE,
    changes_since,
    changes_text,
    checkpoint_tensors,
    collected,
    fingerprint,
    restore,
)
from rasa_ram.training.schedule import Schedule
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.state import FOLDER as CHECKPOINTS
from rasa_ram.training.state import (
    Position,
    checkpoint_folder,
    find_checkpoint,
    own_random_state,
    random_state,
    read_position,
    set_random_state,
    write_checkpoint,
)
from rasa_ram.training.step import recomputing
from rasa_ram.training.teacher import Teacher
from rasa_ram.training.update import Updater, join
from rasa_ram.vocabulary import Vocabulary

__all__ = ["Processes", "RunReport", "RunSettings", "StepReport", "Trainer"]

# Steps whose losses are kept beside a batch that failed.
LAST_LOSSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run came to.

    Attributes:
        steps: Steps done in all, those before a resume included.
        losses: Of the last step, by name; empty if this run did none.
        seconds: Of this run alone.
        images_per_second: Of all processes, of this run alone.
        interrupted: Whether it was asked to end early; it can be resumed.
        checkpoint: Folder of the last checkpoint.
        weights: The final weights; None if the run was interrupted.
        average: The moving average of the weights; None if there is none.
    """

    steps: int
    losses: dict[str, float]
    seconds: float
    images_per_second: float
    interrupted: bool
    checkpoint: Path
    weights: Path | None
    average: Path | None


@dataclass(eq=False)
class Trainer:
    """A training run, ready to start.

    Attributes:
        model: RAM, RAM++ or Tag2Text; its weights are trained in place, those with ``requires_grad``.
        source: Batches of this process.
        schedule: Learning rates.
        settings: How to run.
        out: The run's folder; made.
        teacher: For RAM and RAM++, if ``settings.parts`` does not leave it out.
        vocabulary: One tag per row of the model, written beside the weights; None writes none.
        resume: Whether to go on from what ``out`` holds. While steps are left, the rates and ``clip_norm`` may then be
            others, and so may settings that change no weight.
        data: What names the data, such as the manifest's sha256; a resumed run must have the same. Its number of
            batches is always compared.
        begun: Called in the main process alone once nothing speaks against the run, before its first step.
        progress: Called after each step, in the main process alone.

    Raises:
        ConfigError: If the settings do not fit the model or the source, the teacher is missing, or ``out`` holds a run
            already and ``resume`` is False.
    """

    model: Ram
    source: BatchSource
    _: KW_ONLY
    schedule: Schedule
    settings: RunSettings
    out: Path
    teacher: Teacher | None = None
    vocabulary: Vocabulary | None = None
    resume: bool = False
    data: Mapping[str, str] = field(default_factory=dict)
    begun: Callable[[], object] | None = None
    progress: Callable[[StepReport], None] | None = None

    def __post_init__(self) -> None:
        self.out = Path(self.out)
        self.settings.steps_per_epoch(len(self.source))
        _require_parts(self.model, self.settings, self.teacher)
        if self.vocabulary is not None and len(self.vocabulary) != self.model.config.num_tags:
            raise ConfigError(
                f"the vocabulary has {len(self.vocabulary)} tags, the model {self.model.config.num_tags}; pass its own"
            )

    def run(self) -> RunReport:
        """Train until the end, or until SIGINT or SIGTERM.

        Raises:
            ConfigError: If ``out`` holds a run that this one does not go on with.
            OutputError: If a file cannot be written.
            TrainingError: If a loss or a gradient is not finite, or the source ends early; the weights are not touched
                by what was not finite, and the batch lies in ``out/failed``.
        """
        processes = join(self.model, self.settings)
        with ExitStack() as stack:
            stack.enter_context(own_random_state(self.settings.seed + processes.rank, processes.device))
            stack.enter_context(recomputing(self.model, enabled=self.settings.gradient_checkpointing))
            stack.callback(self.model.train, self.model.training)
            interrupt = stack.enter_context(Interrupt())
            run = _Run(self, processes)
            if processes.main and self.begun is not None:
                self.begun()
            return run.go(interrupt)


class _Run:
    """A run in one process, from its start or resume to its end."""

    def __init__(self, trainer: Trainer, processes: Processes) -> None:
        self.trainer, self.processes, self.settings = trainer, processes, trainer.settings
        self.model = trainer.model.train()
        self.updater = Updater(self.model, settings=self.settings, processes=processes, teacher=trainer.teacher)
        decay = self.settings.ema
        self.average = None if decay is None else MovingAverage(self.model, decay=decay)
        self.fingerprint = fingerprint(
            self.model,
            trainer.schedule,
            self.settings,
            processes=processes,
            data={**trainer.data, "batches": len(trainer.source)},
        )
        self.per_epoch = self.settings.steps_per_epoch(len(trainer.source))
        self.steps = self.settings.total_steps(len(trainer.source))
        self.changes: list[Mapping[str, Any]] = []
        self.step, self.checkpoint = self._resumed()
        self.last: deque[StepReport] = deque(maxlen=LAST_LOSSES)
        self.meter = _Meter()

    def go(self, interrupt: Interrupt) -> RunReport:
        """Do all steps that are left, and write what comes of them."""
        with ExitStack() as stack:
            log = self._open_log(stack)
            for batches in stack.enter_context(closing(self._batches())):
                self._one(batches, log)
                asked = self.processes.any(interrupt.asked)
                if asked or self.step % self.settings.save_every == 0 or self.step == self.steps:
                    self.checkpoint = self._save()
                if asked:
                    break
        if self.checkpoint is None:  # not even one step was asked for
            self.checkpoint = self._save()
        finished = self.step >= self.steps
        return RunReport(
            steps=self.step,
            losses=self.last[-1].losses if self.last else {},
            seconds=self.meter.seconds,
            images_per_second=self.meter.overall,
            interrupted=not finished,
            checkpoint=self.checkpoint,
            weights=self._write_weights(self.trainer.out) if finished else None,
            average=self._write_weights(self.trainer.out / AVERAGE, self.average)
            if finished and self.average
            else None,
        )

    def _resumed(self) -> tuple[int, Path | None]:
        out = self.trainer.out
        if not self.trainer.resume:
            if (out / CHECKPOINTS).exists():
                raise ConfigError(f"{out} holds a training already; resume it, or train in another folder")
            return 0, None
        folder = find_checkpoint(out)
        if folder is None:
            return 0, None
        position = read_position(folder)
        self._note_changes(position, folder)
        restore(folder, self.model, self.updater.optimizer, self.average)
        set_random_state(position.random[self.processes.rank], self.processes.device)
        return position.step, folder

    def _note_changes(self, position: Position, folder: Path) -> None:
        left = position.step < self.steps
        changed = changes_since(position.fingerprint, self.fingerprint, folder=folder, steps_left=left)
        self.changes = [*position.changes, *({"step": position.step, **one} for one in changed)]
        if changed and self.processes.main:
            message = (
                f"{self.trainer.out} goes on with other settings after step {position.step}: {changes_text(changed)}"
            )
            warnings.warn(message, RasaWarning, stacklevel=2)

    def _open_log(self, stack: ExitStack) -> RunLog | None:
        if not self.processes.main:
            return None
        log = RunLog(self.trainer.out, step=self.step, tensorboard=self.settings.tensorboard)
        stack.callback(log.close)
        return log

    def _batches(self) -> Generator[list[Samples], None, None]:
        """The batches of each step that is left."""
        for epoch in range(self.step // self.per_epoch, -(-self.steps // self.per_epoch)):
            done = self.step - epoch * self.per_epoch
            wanted = min(self.per_epoch, self.steps - epoch * self.per_epoch) - done
            with reading(self.trainer.source, epoch, first=done * self.settings.accumulate) as source:
                for _ in range(wanted):
                    yield self._group(source, epoch)

    def _group(self, source: Iterator[Samples], epoch: int) -> list[Samples]:
        # A DataLoader draws a seed when it starts, which a resumed run would draw at another time.
        with torch.random.fork_rng(devices=[]):
            group = list(islice(source, self.settings.accumulate))
        if len(group) < self.settings.accumulate:
            raise TrainingError(
                f"epoch {epoch} ended before the {len(self.trainer.source)} batches that its source promised; "
                "the data changed, or the source counts wrongly"
            )
        return group

    def _one(self, batches: Sequence[Samples], log: RunLog | None) -> None:
        rate = self.trainer.schedule.rate(self.step, steps_per_epoch=self.per_epoch)
        try:
            updated = self.updater.update(batches, rate=rate)
        except NotFiniteError as error:
            raise self._failed(batches, error) from error
        if self.average is not None:
            self.average.update()
        epoch, self.step = self.step // self.per_epoch, self.step + 1
        self.meter.add(sum(len(samples.image_paths) for samples in batches) * self.processes.count)
        report = StepReport(
            step=self.step,
            steps=self.steps,
            epoch=epoch,
            rate=rate,
            losses=updated.losses,
            grad_norm=updated.grad_norm,
            images_per_second=self.meter.recent,
            memory_gib=memory_gib(self.processes.device),
        )
        self.last.append(report)
        if log is not None and (self.step % self.settings.log_every == 0 or self.step == self.steps):
            log.write(report)
            self.meter.restart()
        if self.processes.main and self.trainer.progress is not None:
            self.trainer.progress(report)

    def _failed(self, batches: Sequence[Samples], error: NotFiniteError) -> TrainingError:
        step = self.step + 1
        facts = {"step": step, "batch": error.batch, "reason": str(error), "losses": error.losses}
        last = [{"step": report.step, **report.losses} for report in self.last]
        batch = batches[error.batch]
        saved = save_failed(self.trainer.out, batch, facts, rank=self.processes.rank, last=last)
        return TrainingError(
            f"step {step}: {error}; the weights are as before it, and the batch of {batch.image_paths[0]} lies in "
            f"{saved}; mend its images, or lower the rate or set clip_norm, and resume"
        )

    def _save(self) -> Path:
        main = self.processes.main
        files = checkpoint_tensors(self.model, self.updater.optimizer, self.average, keep=main)
        states = self.processes.gather_texts(random_state(self.processes.device))
        folder = checkpoint_folder(self.trainer.out, self.step)
        if main:
            position = Position(step=self.step, fingerprint=self.fingerprint, random=states, changes=self.changes)
            write_checkpoint(self.trainer.out, position, files, keep=self.settings.keep)
        self.processes.wait()
        return folder

    def _write_weights(self, folder: Path, average: MovingAverage | None = None) -> Path:
        weights = dict(self.model.named_parameters()) | dict(average.weights if average else {})
        whole = collected(weights, keep=self.processes.main)
        if self.processes.main:
            save(self.model, folder, self.trainer.vocabulary, weights=whole)
        self.processes.wait()
        return folder / "model.safetensors"


class _Meter:
    """Counts images and time."""

    def __init__(self) -> None:
        self._began = self._since = time.perf_counter()
        self._all = self._new = 0

    def add(self, images: int) -> None:
        self._all, self._new = self._all + images, self._new + images

    def restart(self) -> None:
        """Begin a new span of :attr:`recent`."""
        self._since, self._new = time.perf_counter(), 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def overall(self) -> float:
        return self._all / max(self.seconds, 1e-9)

    @property
    def recent(self) -> float:
        return self._new / max(time.perf_counter() - self._since, 1e-9)


def _require_parts(model: Ram, settings: RunSettings, teacher: Teacher | None) -> None:
    family = model.config.family
    parts = PARTS[family] if settings.parts is None else settings.parts
    if foreign := sorted(set(parts) - set(PARTS[family])):
        raise ConfigError(f"{family} learns from {', '.join(PARTS[family])} besides tags, not from {foreign[0]}")
    if "captions" in parts and model.config.text is None:
        raise ConfigError(f"this {family} has no captioner; give its config a text, or leave captions out of parts")
    imitated = [part for part in parts if part in {"image_features", "text_features"}]
    if imitated and teacher is None:
        raise ConfigError(
            f"{family} learns {' and '.join(imitated)} from a teacher; pass one, or leave them out of parts"
        )
