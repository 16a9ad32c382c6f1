"""Recipes: a TOML file and ``key=value`` overrides to one frozen :class:`TrainConfig`.

    recipe.toml --load_recipe--> TrainConfig --rasa_ram.training.run.train--> a run's folder, the merged recipe in it

Its tables are ``[model]``, ``[data]`` with ``[data.views]``, ``[schedule]`` and ``[run]``; unknown keys are refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from rasa._files import write_atomically
from rasa._suggest import did_you_mean
from rasa.errors import ConfigError
from rasa_ram.data.augment import Views
from rasa_ram.data.captions import MAX_WORDS
from rasa_ram.data.loader import LoaderSettings
from rasa_ram.data.sampling import LVIS_POWER, LVIS_THRESHOLD
from rasa_ram.training.model_settings import ModelSettings
from rasa_ram.training.objective import PARTS
from rasa_ram.training.schedule import CosineDecay, LinearWarmup, Schedule, StepDecay
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.toml_values import merge, read_override, read_table, write_table

# What a run's folder calls the recipe that it used.
RECIPE = "recipe.toml"
# Side of CLIP ViT-B/16's input, in pixels (arXiv:2103.00020).
TEACHER_SIZE = 224
# Keys that are paths: in a file relative to its folder, in an override to the working folder.
_PATHS = {
    "model": ("label_vectors", "descriptions", "backbone", "text_init", "teacher", "wordpieces"),
    "data": ("manifests", "images", "shards", "cache"),
}
# Keys that are a published model's name or a path.
_NAMES_OR_PATHS = ("vocabulary", "init")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is trained on.

    Attributes:
        manifests: Files of records; see :func:`rasa_ram.data.manifest.open_records`.
        repeats: How often each manifest is seen in an epoch; once each if empty.
        images: Folder that the records' image paths are relative to.
        shards: WebDataset tar files in place of manifests and images, for millions of images; ``*`` is allowed.
        cache: Folder where what was read of the manifests is kept; None is the package's own.
        batch_size: Images of a batch, per process (``batch_size`` of the published files, which is per GPU).
        workers: Processes that read images, for each training process; 0 reads in it.
        order: ``"shuffled"``, each record once an epoch, or ``"class_balanced"``: those of rare tags more often.
        balance_threshold: Share of records below which a tag is rare, for ``"class_balanced"``.
        balance_power: How much more often its records come, in [0, 1]; 1 is the inverse of its share.
        targets: What counts as present: ``"known"``, all tags of the image, or ``"caption"``, those that the chosen
            caption says.
        prompt: Whether captions begin with "a picture of ", as generated ones do; the published training left it away.
        max_words: Words kept of a caption.
        on_bad: What to do about a record or an image that cannot be read: ``"skip"`` and count it, or ``"stop"``.
        views: Crops and changes of the images.

    Raises:
        ConfigError: If the keys contradict each other or a number is out of range.
    """

    manifests: tuple[Path, ...] = ()
    repeats: tuple[int, ...] = ()
    images: Path | None = None
    shards: tuple[Path, ...] = ()
    cache: Path | None = None
    batch_size: int
    workers: int = 4
    order: Literal["shuffled", "class_balanced"] = "shuffled"
    balance_threshold: float = LVIS_THRESHOLD
    balance_power: float = LVIS_POWER
    targets: Literal["known", "caption"] = "known"
    prompt: bool = True
    max_words: int = MAX_WORDS
    on_bad: Literal["skip", "stop"] = "skip"
    views: Views = field(default_factory=Views)

    def __post_init__(self) -> None:
        if self.shards and (self.manifests or self.images or self.repeats):
            raise ConfigError("give either shards, or manifests and images; shards hold both")
        if self.shards and self.order == "class_balanced":
            raise ConfigError("shards are read in their own order; for a balanced one give manifests and images")
        if self.repeats and (len(self.repeats) != len(self.manifests) or min(self.repeats) < 1):
            raise ConfigError(f"repeats must be a number of at least 1 for each manifest, got {list(self.repeats)}")
        for name, least in (("batch_size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def loader_settings(self, *, num_tags: int, seed: int, texts: bool = False) -> LoaderSettings:
        """What a loader makes of the data.

        Args:
            num_tags: Size of the vocabulary.
            seed: Of the run.
            texts: Whether RAM++'s alignment needs captions as text.
        """
        own = {item.name for item in fields(LoaderSettings)}
        shared = {item.name: getattr(self, item.name) for item in fields(self) if item.name in own}
        return LoaderSettings(num_tags=num_tags, seed=seed, texts=texts, **shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """Learning rates; what each key means is in :mod:`rasa_ram.training.schedule`.

    Attributes:
        kind: ``"step"`` keeps the share ``kept`` from epoch to epoch, ``"cosine"`` falls to ``floor`` over the run's
            epochs, ``"constant"`` stays at ``peak``.
        peak: Highest rate.
        floor: Lowest rate; of ``"step"`` and ``"cosine"``.
        kept: Share of the rate kept per epoch, in (0, 1]; of ``"step"``.
        warmup_steps: Steps of the straight rise at the start, within the first epoch; 0 for none.
        warmup_start: Rate that the rise begins with.

    Raises:
        ConfigError: If a key does not belong to the kind, or a rate or share is out of range.
    """

    kind: Literal["step", "cosine", "constant"]
    peak: float
    floor: float | None = None
    kept: float | None = None
    warmup_steps: int = 0
    warmup_start: float = 0.0

    def __post_init__(self) -> None:
        if (self.kept is None) != (self.kind != "step"):
            raise ConfigError('kept belongs to the kind "step", and it needs one')
        if (self.floor is None) != (self.kind == "constant"):
            raise ConfigError('floor belongs to the kinds "step" and "cosine", and they need one')
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps must be at least 0, got {self.warmup_steps}")
        if self.warmup_start and not self.warmup_steps:
            raise ConfigError("warmup_start has no effect without warmup_steps; give both or neither")
        self.build(1)

    def build(self, epochs: int) -> Schedule:
        """The schedule of a run of so many epochs.

        Raises:
            ConfigError: If a rate is out of range.
        """
        if self.kind == "cosine":
            decay: StepDecay | CosineDecay = CosineDecay(peak=self.peak, floor=self.floor or 0.0, epochs=epochs)
        elif self.kind == "step":
            decay = StepDecay(peak=self.peak, floor=self.floor or 0.0, kept=1.0 if self.kept is None else self.kept)
        else:
            decay = StepDecay(peak=self.peak, floor=self.peak, kept=1.0)
        warmup = LinearWarmup(start=self.warmup_start, steps=self.warmup_steps) if self.warmup_steps else None
        return Schedule(decay=decay, warmup=warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A recipe.

    Attributes:
        summary: What it trains, in one line.
        model: What is trained, and what its weights begin as.
        data: What it is trained on.
        schedule: Learning rates.
        run: All else: epochs, losses, precision, processes, checkpoints.

    Raises:
        ConfigError: If the tables contradict each other.
    """

    summary: str = ""
    model: ModelSettings
    data: DataSettings
    schedule: ScheduleSettings
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        family, views = self.model.family, self.data.views
        if views.size != self.model.image_size:
            raise ConfigError(
                f"data.views.size is {views.size} and the model reads {self.model.image_size} pixels; make them equal"
            )
        foreign = set(self.parts) - set(PARTS[family])
        if foreign:
            raise ConfigError(
                f"run.parts: {family} does not learn from {min(foreign)}; it has {', '.join(PARTS[family])}"
            )
        if ("image_features" in self.parts) != (views.teacher_size is not None):
            what = "needs" if "image_features" in self.parts else "has no use for"
            cure = f"set data.views.teacher_size = {TEACHER_SIZE}" if what == "needs" else "leave teacher_size out"
            raise ConfigError(f"run.parts {what} CLIP's view of the image; {cure}")
        if "captions" in self.parts and not self.model.captioner:
            raise ConfigError("run.parts has captions and the model no captioner; set model.captioner = true")

    @property
    def parts(self) -> tuple[str, ...]:
        """What is learned besides tags: ``run.parts``, or all that the family has."""
        return PARTS[self.model.family] if self.run.parts is None else self.run.parts


def recipes() -> dict[str, str]:
    """The built-in recipes, sorted: name to what it trains."""
    entries = sorted(entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return {name.removesuffix(".toml"): _parse(_folder() / name, name).get("summary", "") for name in entries}


def recipe_values(recipe: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Merge a recipe with overrides, as nested tables of plain TOML values; paths are absolute.

    Raises:
        ConfigError: If there is no such recipe, it is no TOML, or an override is malformed.
    """
    if isinstance(recipe, Path) or recipe.endswith(".toml"):
        path = Path(recipe).expanduser()
        values = _anchored(_parse(path, str(path)), path.resolve().parent)
    else:
        values = _built_in(recipe)
    for override in overrides:
        values = merge(values, _anchored(read_override(override), Path.cwd()))
    return values


def load_recipe(recipe: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a recipe.

    Args:
        recipe: Name of a built-in one, or a file that ends in ``.toml``.
        overrides: ``key=value`` with dotted keys and TOML values, such as ``"run.epochs=3"``; nothing behind ``=``
            takes a key out.

    Raises:
        ConfigError: If there is no such recipe, it is no TOML, a key is unknown or missing, or a value is wrong.
    """
    return build_config(recipe_values(recipe, overrides), name=str(recipe))


def build_config(values: Mapping[str, Any], *, name: str) -> TrainConfig:
    """Make a recipe of the tables that :func:`recipe_values` returns; ``name`` is what errors call it.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is wrong.
    """
    try:
        return read_table(TrainConfig, values)
    except ConfigError as error:
        raise ConfigError(f"recipe {name}: {error}") from error


def config_values(config: TrainConfig) -> dict[str, Any]:
    """A recipe as nested tables of plain values, every default included; :func:`build_config` takes them back."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def config_text(config: TrainConfig) -> str:
    """A recipe as TOML, every default included."""
    return write_table(config_values(config))


def write_recipe(config: TrainConfig, folder: Path) -> Path:
    """Write the merged recipe into a run's folder; :func:`load_recipe` reads it back without loss.

    Raises:
        OutputError: If it cannot be written.
    """
    path = folder / RECIPE
    with write_atomically(path, text=True, make_folder=True) as file:
        file.write(config_text(config))
    return path


def _folder() -> Traversable:
    return files("rasa_ram") / "training" / "recipes"


def _built_in(name: str) -> dict[str, Any]:
    known = [entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml")]
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f'unknown recipe "{name}"{hint} (`rasa-ram train --list` shows them; a file ends with .toml)')
    return _parse(_folder() / f"{name}.toml", name)


def _parse(source: Traversable, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{name}: there is no such file; `rasa-ram train --list` shows the built-in recipes"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not a readable UTF-8 text file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: no valid TOML: {error}") from error


def _anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``values`` with the paths in it absolute, those that were relative being relative to ``folder``."""
    anchored = dict(values)
    for table, keys in _PATHS.items():
        if isinstance(values.get(table), Mapping):
            anchored[table] = {
                name: _absolute(value, folder) if name in keys else value for name, value in values[table].items()
            }
    if isinstance(model := anchored.get("model"), dict):
        for name in _NAMES_OR_PATHS:
            if isinstance(value := model.get(name), str) and ("/" in value or (folder / value).exists()):
                model[name] = _absolute(value, folder)
    return anchored


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    return str(folder / Path(value).expanduser()) if isinstance(value, str) else value
