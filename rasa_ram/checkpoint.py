"""Weights of RAM, RAM++ and Tag2Text: read, converted and loaded; strict about every key.

    published .pth, plain state dict or slim file --read_checkpoint--> tensors by our names
    the same --convert_file--> slim safetensors file: the weights alone, each once, with their configuration
    name, file or folder --load--> model
    model --save--> folder with the same file, its configuration and its vocabulary

Nothing here runs code from a file, leaves a weight at its random value, or drops a tensor that
``rasa_ram/_names.py`` does not name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from rasa._files import write_atomically
from rasa._torch.files import TensorFile, open_tensors
from rasa._version import __version__
from rasa.errors import CheckpointError, InputError
from rasa_ram._conversion import converted, plan_conversion
from rasa_ram._detect import describe, infer_config
from rasa_ram._files import SCHEMA, config_in, config_to_json, write_slim
from rasa_ram._loading import fill, find_weights, model_config
from rasa_ram._names import our_aliases
from rasa_ram.builders import build
from rasa_ram.config import RamConfig
from rasa_ram.modeling.ram import Ram
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import VOCABULARY, write_vocabulary

__all__ = ["convert_file", "convert_state_dict", "load", "read_checkpoint", "read_config", "save"]


def convert_state_dict(
    official: Mapping[str, Tensor], config: RamConfig, *, name: str = "state dict", ignore: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Turn a published state dict into one that ``Ram(config).load_state_dict`` takes, strictly.

    Relative-position tables of another window are resized; dtypes stay. Tensors are not copied where they need
    not be, and tied names of the captioner hold the same tensor. Meta tensors are renamed and reshaped alike.

    Args:
        official: Tensors by published names, older ones included; or by ours.
        config: The model to be filled. With ``text=None`` the captioner's tensors are left out.
        name: What errors call the state dict: its file.
        ignore: Regular expressions of whole keys that the caller knows not to be needed.

    Raises:
        CheckpointError: If it is of another architecture or vocabulary, a key is missing, unknown or of a wrong
            shape, or a weight is not of finite floating-point numbers.
    """
    plan = plan_conversion(official, config, name=name, ignore=ignore)
    tensors = dict(converted(official, plan, name=name))
    return tensors | {alias: tensors[canonical] for alias, canonical in our_aliases(config).items()}


def read_checkpoint(
    path: str | os.PathLike[str], config: RamConfig, *, ignore: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Read the weights of a model from a file, as :func:`convert_state_dict` returns them.

    The tensors may be views of the mapped file: do not change it while they live.

    Args:
        path: A published ``.pth`` (state dict under ``model``, beside training state), a plain state dict by
            published names or ours, or a file of :func:`convert_file`.
        config: The model to be filled.
        ignore: See :func:`convert_state_dict`.

    Raises:
        CheckpointError: If the file is absent, damaged or would run code, or its tensors are refused.
    """
    return convert_state_dict(open_tensors(Path(path)).tensors, config, name=str(path), ignore=ignore)


def read_config(path: str | os.PathLike[str]) -> RamConfig:
    """Find out which model a file holds: from its metadata, else from the shapes of its tensors.

    Tensors do not show the number of attention heads of the tag decoder and the captioner, nor the descriptions per
    tag of RAM++; those of the published models are taken.

    Raises:
        CheckpointError: If the file is absent, damaged or would run code, or is of another kind of model.
    """
    return _config_of(open_tensors(Path(path)))


def convert_file(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    config: RamConfig | str | None = None,
    *,
    ignore: Sequence[str] = (),
) -> Path:
    """Write the weights of any readable file as a slim safetensors file, once for all later loads.

    Holds one tensor in memory at a time beside the mapped source. The file appears whole or not at all, and the
    same source gives the same bytes. Its metadata name the source's sha256, the configuration and rasa's version.

    Args:
        source: See :func:`read_checkpoint`.
        dest: The file to write, float32; replaced if it exists. Its folder is made.
        config: The model, or the name of a published one, such as ``ram-swin-l.14m``. None asks the file. A
            configuration with ``text=None`` leaves the captioner out.
        ignore: See :func:`convert_state_dict`.

    Raises:
        CheckpointError: See :func:`read_checkpoint`.
        InputError: If ``dest`` is ``source``.
        OutputError: If ``dest`` cannot be written.
        UnknownModelError: If no model has the given name.
    """
    source, dest = Path(source), Path(dest)
    if dest.exists() and source.exists() and dest.samefile(source):
        raise InputError(f"{dest} is the file to be converted; name another one to write")
    opened = open_tensors(source)
    model = config if isinstance(config, str) else opened.metadata.get("model", "")
    config = model_config(config) if isinstance(config, str) else config or _config_of(opened)
    plan = plan_conversion(opened.tensors, config, name=str(source), ignore=ignore)
    metadata = {"schema": SCHEMA, "format": "pt", "config": config_to_json(config), "rasa_version": __version__}
    metadata |= {"model": model, "source_sha256": _sha256(source)}
    shapes = [(weight.name, weight.shape) for weight, _ in plan.copies]
    write_slim(dest, shapes, converted(opened.tensors, plan, name=str(source)), metadata)
    return dest


def load(
    source: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    text: bool = False,
    config: RamConfig | None = None,
) -> Ram:
    """Load a model with its weights, in evaluation mode.

    Args:
        source: ``ram-swin-l.14m``, ``ram-plus-swin-l.14m`` or ``tag2text-swin-b.14m``, fetched and converted on first
            use; or a file (see :func:`read_checkpoint`); or a folder with ``config.json`` and ``model.safetensors``.
        device: Of torch, such as ``cuda``.
        dtype: ``float64``, ``float32``, ``bfloat16`` or ``float16``.
        text: Whether to load the captioner as well.
        config: The model's sizes, where the file does not tell them; see :func:`read_config`.

    Raises:
        CheckpointError: If the weights are refused, or ``text`` is asked of weights without a captioner.
        InputError: If the device or the dtype is unknown.
        UnknownModelError: If ``source`` is neither a model's name nor a file or folder.
        WeightsError: If a model's file cannot be fetched.
    """
    path, known = find_weights(source, convert=convert_file)
    opened = open_tensors(path)
    config = _with_text(config or known or _config_of(opened), opened, text=text)
    tensors = convert_state_dict(opened.tensors, config, name=str(path))
    return fill(lambda: build(config), tensors, aliases=our_aliases(config), device=device, dtype=dtype)


def save(
    model: Ram,
    folder: str | os.PathLike[str],
    vocabulary: Vocabulary | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a model as a folder that :func:`load` and :func:`rasa_ram.load_tagger` take.

    Each file appears whole or not at all, the weights last: a folder that holds them is complete.

    Args:
        model: On any device and in any floating-point type; written as float32.
        folder: Gets ``config.json``, ``model.safetensors`` and ``vocabulary.json``; it is made, and files
            of these names are replaced.
        vocabulary: One tag per row of the model; None writes no vocabulary, and the folder does not tell its tags.
        weights: To be written instead of the model's own, such as their moving average, by names of ``state_dict``.

    Returns:
        The weights' file.

    Raises:
        InputError: If the vocabulary has another number of tags than the model.
        OutputError: If a file cannot be written.
    """
    folder, config = Path(folder), model.config
    if vocabulary is not None and len(vocabulary) != config.num_tags:
        raise InputError(f"the vocabulary has {len(vocabulary)} tags, the model {config.num_tags}; pass its own")
    aliases = our_aliases(config)
    tensors = {name: t for name, t in (weights or model.state_dict()).items() if name not in aliases}
    with write_atomically(folder / "config.json", text=True, make_folder=True) as file:
        file.write(config_to_json(config))
    if vocabulary is not None:
        write_vocabulary(vocabulary, folder / VOCABULARY)
    path = folder / "model.safetensors"
    shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    metadata = {"schema": SCHEMA, "format": "pt", "config": config_to_json(config), "rasa_version": __version__}
    write_slim(path, shapes, ((name, tensor.cpu()) for name, tensor in tensors.items()), metadata)
    return path


def _config_of(opened: TensorFile) -> RamConfig:
    return config_in(opened) or infer_config(opened.shapes, name=str(opened.path))


def _with_text(config: RamConfig, opened: TensorFile, *, text: bool) -> RamConfig:
    if not text:
        return replace(config, text=None)
    if config.text is None and config.family != "ram-plus":
        config = replace(config, text=_config_of(opened).text)
    if config.text is None:
        raise CheckpointError(f"{opened.path} holds {describe(config)} without a captioner; load it with text=False")
    return config


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
