"""From the name of a preset to a pipeline that runs."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from rasa.config import PipelineConfig, is_config_path, load_preset_config, read_config
from rasa.errors import ConfigError, DependencyError
from rasa.pipeline import Pipeline, stage_name
from rasa.protocols import Movable, Stage
from rasa.registry import build, find_model, takes_option
from rasa.stages import Detect, DetectAndSegment, Filter, InTurn, Segment, Suppress, Tag

_HOME = "cpu"  # where models wait for their turn on the device


def load_config(preset: str | Path = "lite", **overrides: Any) -> PipelineConfig:
    """The configuration of a preset or TOML file, with ``overrides`` in place of its values.

    Raises:
        UnknownModelError: If there is no such preset.
        ConfigError: If the file is malformed, or an override is unknown or out of its range.
    """
    config = read_config(preset) if is_config_path(preset) else load_preset_config(str(preset))
    return config.with_overrides(overrides)


def load(
    preset: str | Path = "lite", *, device: str | None = None, dtype: str | None = None, **overrides: Any
) -> Pipeline:
    """Build the pipeline of a preset; model packages are imported and checkpoints read now.

    Args:
        preset: A built-in preset (:func:`rasa.config.presets`), or the path of a TOML file.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for the best
            there is; None keeps the preset's, which is the CPU unless it says otherwise.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; None keeps the preset's.
        overrides: Any other field of :class:`rasa.config.PipelineConfig`. None is a
            value too: ``tagger=None`` makes a pipeline that is given its tags.

    Returns:
        A pipeline whose results carry the preset's name and the whole configuration.

    Raises:
        UnknownModelError: If there is no such preset, or it names an unknown model.
        ConfigError: If the file or an override is wrong, or the device is not there.
        DependencyError: If a package is missing; the message names the extra.
        WeightsError: If a checkpoint is missing; the message says how to fetch it.
    """
    given = {"device": device, "dtype": dtype}
    config = load_config(preset, **overrides, **{key: value for key, value in given.items() if value is not None})
    return pipeline_of(config, preset=preset)


def pipeline_of(config: PipelineConfig, *, preset: str | Path) -> Pipeline:
    """Build the pipeline that ``config`` describes; ``preset`` is what results call it.

    Raises:
        UnknownModelError, ConfigError, DependencyError, WeightsError: As :func:`load`.
    """
    config = replace(config, device=resolve_device(config.device))
    # A path that is no UTF-8 must not spoil the JSON of every result.
    name = os.fsencode(preset).decode("utf-8", "backslashreplace")
    return Pipeline(*stages_of(config), extra={"preset": name, "config": config.to_dict()})


def stages_of(config: PipelineConfig) -> list[Stage]:
    """The stages that ``config`` describes, with their models built.

    Raises:
        UnknownModelError: If it names an unknown model.
        ConfigError: If it names a model of another role, or a segmenter after a detector that gives masks; or if
            ``low_memory`` or ``compile`` is asked of models that cannot.
        DependencyError, WeightsError: If a model cannot be built here.
    """
    _check_roles(config)
    _check_low_memory(config)
    _check_compile(config)
    turn = Lock()
    stages: list[Stage] = []
    if config.tagger is not None:
        tagger = _model(config, "tagger", tag_threshold=config.tag_threshold)
        stages.append(_in_turn(Tag(tagger), tagger, config, turn=turn))
    if config.detector is not None:
        detector = _model(config, "detector", box_threshold=config.box_threshold)
        # The detector uses its threshold to stay fast; the filter makes it hold for any detector.
        least = 0.0 if config.box_threshold is None else config.box_threshold
        lift = DetectAndSegment if _gives_masks(config.detector) else Detect
        find = lift(detector, objects_only=config.objects_only)
        stages.append(_in_turn(find, detector, config, turn=turn))
        stages.append(Filter(box_threshold=least, min_area=config.min_area, max_instances=config.max_instances))
        stages.append(Suppress(nms_threshold=config.nms_threshold, merge_threshold=config.merge_threshold))
    if config.segmenter is not None:
        segmenter = _model(config, "segmenter")
        stages.append(_in_turn(Segment(segmenter), segmenter, config, turn=turn))
    return stages


def preset_checkpoints(preset: str | Path) -> tuple[str, ...]:
    """Names of all checkpoints that a preset uses, also of those it has a fallback for.

    Raises:
        UnknownModelError: If there is no such preset, or it names an unknown model.
        ConfigError: If the file is malformed.
    """
    return config_checkpoints(load_config(preset))


def config_checkpoints(config: PipelineConfig) -> tuple[str, ...]:
    """Names of all checkpoints that the models of ``config`` use, each once, in running order.

    Raises:
        UnknownModelError: If it names an unknown model.
    """
    entries = [find_model(name) for name in config.models]
    return tuple(dict.fromkeys(name for entry in entries for name in (*entry.checkpoints, *entry.fallbacks)))


def resolve_device(device: str) -> str:
    """Check that ``device`` is there, and turn ``"auto"`` into the best there is.

    Only the name "cpu" is believed without looking; PyTorch is imported for any other.

    Raises:
        ConfigError: If the device is not there.
        DependencyError: If PyTorch is not installed.
    """
    if device == "cpu":
        return device
    if find_spec("torch") is None:
        if device == "auto":
            return "cpu"
        raise DependencyError(f'device "{device}" needs the package "torch"; install the extra "lite"')
    torch = import_module("torch")
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), "mps"]
    if not torch.backends.mps.is_available():
        there.remove("mps")
    if device == "auto":
        return "cuda" if "cuda:0" in there else there[-1]
    if device not in there and not (device == "cuda" and "cuda:0" in there):
        raise ConfigError(f'device "{device}" is not there; PyTorch {torch.__version__} sees: {", ".join(there)}')
    return device


def _check_roles(config: PipelineConfig) -> None:
    """Before any model is built, which may take minutes."""
    for field in ("tagger", "detector", "segmenter"):
        name = getattr(config, field)
        role = field if name is None else find_model(name).role
        if role != field and (field, role) != ("detector", "detector-segmenter"):
            raise ConfigError(f'{field} must name a {field}, got "{name}", which is a {role}')
    if config.detector is not None and config.segmenter is not None and _gives_masks(config.detector):
        raise ConfigError(
            f'detector "{config.detector}" gives the masks too, so segmenter "{config.segmenter}" would undo them; '
            "leave segmenter out (segmenter=None), or name another detector"
        )


def _check_low_memory(config: PipelineConfig) -> None:
    if config.low_memory and config.device == _HOME:
        raise ConfigError(
            'low_memory saves memory of a GPU, and on device "cpu" all models share the host\'s; leave it out, or '
            'choose a device such as "cuda"'
        )


def _check_compile(config: PipelineConfig) -> None:
    if config.compile and not any(takes_option(name, "compile") for name in config.models):
        raise ConfigError(f"compile has no effect on {', '.join(config.models)}; leave it out")


def _gives_masks(detector: str) -> bool:
    return find_model(detector).role == "detector-segmenter"


def _model(config: PipelineConfig, role: str, **thresholds: float | None) -> Any:
    name = getattr(config, role)
    options: dict[str, Any] = {key: value for key, value in thresholds.items() if value is not None}
    if config.compile and takes_option(name, "compile"):
        options["compile"] = True
    return build(name, device=_HOME if config.low_memory else config.device, dtype=config.dtype, **options)


def _in_turn(stage: Stage, model: object, config: PipelineConfig, *, turn: Lock) -> Stage:
    if not config.low_memory:
        return stage
    if not isinstance(model, Movable):
        raise ConfigError(
            f"low_memory moves models between devices, and {type(model).__name__} of stage {stage_name(stage)!r} has "
            "no method to(device) for that; leave low_memory out, or name another model"
        )
    return InTurn(stage, model, config.device, home=_HOME, turn=turn)
