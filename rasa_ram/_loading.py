"""From a name to a file, and from tensors to a module that holds them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from rasa import weights
from rasa._suggest import did_you_mean
from rasa._torch.files import model_files, read_metadata
from rasa._torch.fill import assign
from rasa._torch.loading import torch_device, torch_dtype, without_init
from rasa.errors import CheckpointError, OutputError, RasaWarning, UnknownModelError
from rasa_ram import builders
from rasa_ram._files import config_from_json
from rasa_ram.config import RamConfig, TextConfig
from rasa_ram.modeling.ram import Ram

# Each with all that its published file holds.
_MODELS: dict[str, Callable[[], RamConfig]] = {
    "ram-swin-l.14m": lambda: builders.ram_swin_l_384(text=TextConfig()),
    "ram-plus-swin-l.14m": builders.ram_plus_swin_l_384,
    "tag2text-swin-b.14m": lambda: builders.tag2text_swin_b_384(text=TextConfig()),
}


def model_config(name: str) -> RamConfig:
    """The configuration of a published model, its captioner included.

    Raises:
        UnknownModelError: If no model has this name.
    """
    if name not in _MODELS:
        raise UnknownModelError(f'unknown model "{name}"{did_you_mean(name, _MODELS)}; known are {", ".join(_MODELS)}')
    return _MODELS[name]()


def find_weights(source: str | os.PathLike[str], *, convert: Callable[..., Path]) -> tuple[Path, RamConfig | None]:
    """The file that a name, a path or a folder means, and the configuration where it is written beside it.

    Args:
        source: What the user gave.
        convert: :func:`rasa_ram.checkpoint.convert_file`; called for the fetched file of a model.

    Raises:
        CheckpointError: If a folder lacks one of its two files.
        UnknownModelError: If ``source`` is neither a model's name nor a file or folder.
        WeightsError: If a model's file cannot be fetched.
    """
    if isinstance(source, str) and source in _MODELS:
        return _fetched(source, convert), model_config(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        hint = did_you_mean(str(source), _MODELS)
        raise UnknownModelError(
            f'"{source}" is neither a file, a folder nor a model{hint}; known are {", ".join(_MODELS)}'
        )
    return path, None


def _in_folder(folder: Path) -> tuple[Path, RamConfig]:
    config, file = model_files(folder)
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {config}: {error}") from error
    return file, config_from_json(text, name=str(config))


def _fetched(name: str, convert: Callable[..., Path]) -> Path:
    """The slim file of a published model, converted beside the fetched one on first use."""
    checkpoint = weights.checkpoints()[name]
    slim = checkpoint.path.with_name("model.safetensors")
    if slim.is_file() and read_metadata(slim).get("source_sha256") == checkpoint.sha256:
        return slim
    published = weights.fetch(name)
    try:
        return convert(published, slim, name)
    except OutputError as error:
        message = f"{error}; {published} is read each time, which takes longer"
        warnings.warn(message, RasaWarning, stacklevel=4)
        return published


def fill(
    make: Callable[[], Ram], tensors: Mapping[str, Tensor], *, aliases: Mapping[str, str], device: str, dtype: str
) -> Ram:
    """Make a model and give it its weights, without ever drawing random ones.

    Args:
        make: Builds the model.
        tensors: Of all its parameters; copied.
        aliases: Names of parameters that are the same as others: alias to canonical name.
        device: Of torch.
        dtype: A key of the table above.

    Raises:
        InputError: If the device or the dtype is unknown.
    """
    where, kind = torch_device(device), torch_dtype(dtype)
    with without_init():
        model = make()
    return assign(model, tensors, device=where, dtype=kind, aliases=aliases)
