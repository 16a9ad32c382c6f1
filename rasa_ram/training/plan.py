"""The dry run: what a recipe comes to before a single step is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from rasa.errors import ConfigError
from rasa_ram.data.shard_source_index import index_shards
from rasa_ram.tokenizer import MAX_TOKENS
from rasa_ram.training.config import TrainConfig
from rasa_ram.training.data_files import open_table, shard_files
from rasa_ram.training.initialise import count_tags, frozen_names, model_sizes
from rasa_ram.training.memory_estimate import MemoryEstimate, estimate_memory, meta_model

# Both towers of CLIP ViT-B/16 (arXiv:2103.00020), which the loop loads.
TEACHER_WEIGHTS = 149_620_737


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCount:
    """Weights of a part of the model.

    Attributes:
        trained: Numbers that are trained.
        frozen: Numbers that are not.
    """

    trained: int
    frozen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe comes to.

    Attributes:
        parts: Part of the model to its weights; what parts share counts for the first.
        memory: Of one process.
        records: In the data.
        effective_batch: Images of one step, over processes and accumulation.
        steps_per_epoch: Steps that see the data once.
        steps: Of the whole run.
        image_tokens: Tokens of all images of the run that the tag decoder attends to.
        text_tokens: Most tokens of tags and captions that the captioner can read in the run; 0 without one.
        images_per_second: Of all processes, where given.
        hours: Of the whole run, where the speed was given.
        notes: What the user should know, a sentence each.
    """

    parts: Mapping[str, PartCount]
    memory: MemoryEstimate
    records: int
    effective_batch: int
    steps_per_epoch: int
    steps: int
    image_tokens: int
    text_tokens: int
    images_per_second: float | None = None
    hours: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def trained(self) -> int:
        """Weights that are trained."""
        return sum(part.trained for part in self.parts.values())

    @property
    def frozen(self) -> int:
        """Weights that are not."""
        return sum(part.frozen for part in self.parts.values())


def make_plan(
    config: TrainConfig, *, processes: int = 1, records: int | None = None, images_per_second: float | None = None
) -> Plan:
    """Count what a recipe comes to, without weights and without a GPU; takes seconds for the largest model.

    Args:
        config: The recipe.
        processes: That train together, one per GPU.
        records: In the data; None counts them.
        images_per_second: Of all processes together, to tell the hours.

    Raises:
        ConfigError: If the recipe is impossible: names no data, or an epoch has not one step.
        InputError: If the data are malformed.
    """
    if processes < 1 or (images_per_second is not None and images_per_second <= 0):
        raise ConfigError("processes must be at least 1 and images per second above 0")
    num_tags = count_tags(config.model.vocabulary)
    model = meta_model(model_sizes(config.model, num_tags))
    frozen = frozen_names(model, config.model.freeze)
    parts = count_parts(model, frozen)
    count = count_records(config, num_tags) if records is None else records
    run, batch = config.run, config.data.batch_size * processes
    per_epoch = run.steps_per_epoch(count // batch)
    steps = run.total_steps(count // batch)
    images = steps * batch * run.accumulate
    memory = estimate_memory(
        model,
        config.data.batch_size,
        parts=config.parts,
        autocast=run.precision == "bfloat16",
        recompute=run.gradient_checkpointing,
        average=run.ema is not None,
        split=processes if run.sharding == "fsdp" else 1,
        teacher_weights=TEACHER_WEIGHTS if config.data.views.teacher_size is not None else 0,
    )
    vision = model.config.vision
    side = vision.image_size // (vision.patch_size * 2 ** (len(vision.depths) - 1))
    return Plan(
        parts=parts,
        memory=memory,
        records=count,
        effective_batch=batch * run.accumulate,
        steps_per_epoch=per_epoch,
        steps=steps,
        image_tokens=images * (side * side + 1),
        text_tokens=images * 2 * MAX_TOKENS if "captions" in config.parts else 0,
        images_per_second=images_per_second,
        hours=None if images_per_second is None else images / images_per_second / 3600,
        notes=tuple(_notes(config, per_epoch)),
    )


def count_parts(model: nn.Module, frozen: tuple[str, ...]) -> dict[str, PartCount]:
    """Count the weights of each part of a model; ``frozen`` are the names of those that are not trained."""
    found: dict[str, list[int]] = {}
    for name, weight in model.named_parameters():
        found.setdefault(name.partition(".")[0], [0, 0])[name in frozen] += weight.numel()
    return {name: PartCount(trained=trained, frozen=still) for name, (trained, still) in found.items()}


def count_records(config: TrainConfig, num_tags: int) -> int:
    """Records of the recipe's data, as many as an epoch shows.

    Raises:
        ConfigError: If it names none.
        InputError: If they are malformed.
    """
    data = config.data
    if data.shards:
        return len(index_shards(shard_files(data), on_bad=data.on_bad))
    if not data.manifests:
        raise ConfigError("the recipe names no data.manifests to count; name them, or tell how many records there are")
    return len(open_table(data, num_tags))


def _notes(config: TrainConfig, per_epoch: int) -> list[str]:
    notes, model = [], config.model
    if config.schedule.warmup_steps > per_epoch:
        notes.append(
            f"the warm-up of {config.schedule.warmup_steps} steps is longer than the first epoch of {per_epoch} and "
            "ends with it, below the peak, as the published code's does; lower schedule.warmup_steps for small data"
        )
    if model.init is None and model.backbone is None:
        notes.append("the image encoder begins with random weights; set model.backbone or model.init for others")
    if config.run.max_steps is not None:
        notes.append(f"run.max_steps ends the run after {config.run.max_steps} steps at most")
    return notes
