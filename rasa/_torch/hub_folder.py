"""Models of transformers from a folder of the model hub, without a network and without a word on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import logging

from rasa._torch.files import read_settings
from rasa.errors import CheckpointError, DependencyError

# What transformers needs beside the weights.
WHOLE_FOLDER = "fetch the whole folder of the model: config.json, *.safetensors, tokenizer and preprocessor files"


def load_hub_model(folder: Path, kind: Any, *, family: str) -> Any:
    """The model in float32 on the CPU, in evaluation mode; every weight from the folder's safetensors.

    Args:
        folder: With ``config.json`` and ``model.safetensors``.
        kind: Class of transformers.
        family: The ``model_type`` that ``config.json`` must have.

    Raises:
        CheckpointError: If the folder is of another family, or its weights are missing, damaged or do not fit.
        DependencyError: If a package that its configuration asks for is not installed.
    """
    found = read_settings(folder / "config.json", cure=WHOLE_FOLDER).get("model_type")
    if found != family:
        raise CheckpointError(f'{folder} holds a model of the type "{found}", not "{family}"')
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except ImportError as error:
        raise DependencyError(f"{folder} needs a package that is not installed: {_first_line(error)}") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded ({_first_line(error)}); fetch it again") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, report.get(what, ()))):
            raise CheckpointError(
                f'{folder} has {len(keys)} {what.replace("_", " ")}, first "{keys[0]}"; fetch it again'
            )
    return model.eval()


def load_hub_tokenizer(folder: Path) -> Any:
    """The tokenizer of a hub folder.

    Raises:
        CheckpointError: If its files are missing or damaged.
    """
    # Without them transformers makes a tokenizer to which every word is unknown, and says nothing.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        raise CheckpointError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json; fetch them too")
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"{folder} has no tokenizer that can be read ({_first_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and tables of keys off the terminal; what is wrong is raised instead."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
