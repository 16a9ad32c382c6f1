"""The Recognize Anything Model: RAM, RAM++ and Tag2Text.

>>> import rasa_ram
>>> tagger = rasa_ram.load_tagger("ram-swin-l.14m")    # doctest: +SKIP

Names are looked up on first use (PEP 562): torch and timm take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasa_ram.captioner import load_captioner
    from rasa_ram.checkpoint import load
    from rasa_ram.tagger import load_tagger
    from rasa_ram.vocabulary import Vocabulary

_HOMES = {
    "Vocabulary": "rasa_ram.vocabulary",
    "load": "rasa_ram.checkpoint",
    "load_captioner": "rasa_ram.captioner",
    "load_tagger": "rasa_ram.tagger",
}

__all__ = ["Vocabulary", "load", "load_captioner", "load_tagger"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module "{__name__}" has no attribute "{name}"')
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
