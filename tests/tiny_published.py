"""Tiny models in place of the published ones, under their names: what `rasa weights fetch` would bring."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rasa import weights
from tests.adapters import tiny, tiny_sam
from tests.ram.tiny import NAMES, tiny_model

_READERS = (
    "rasa_ram.published",
    "rasa_ram.tokenizer",
    "rasa.adapters.grounding_dino.loading",
    "rasa.adapters.grounding_dino.text",
    "rasa.adapters.sam.loading",
    "rasa.adapters.sam2.loading",
    "rasa.adapters.sam3.loading",
)


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write every file that the presets of RAM fetch, with tiny models, and let all readers find it.

    The builders, the adapters' readers and the presets are the real ones; only what lies in the files is small.
    """
    _write_ram(folder, monkeypatch)
    files: dict[str, Path] = {path.stem: path for path in folder.iterdir()}
    for name, save in {
        "grounding-dino-swin-t.ogc": tiny.save_tiny_grounding_dino,
        "grounding-dino-swin-b.cogcoor": tiny.save_tiny_grounding_dino,
        "sam-vit-b.sa1b": tiny_sam.save_tiny_sam,
        "sam-hq-vit-h.hq44k": lambda place: tiny_sam.save_tiny_sam(place, high_quality=True),
        "sam2.1-hiera-t.sav": tiny_sam.save_tiny_sam2,
    }.items():
        files[name] = save(folder / name)
        if name.startswith(("sam-vit", "sam-hq")):
            files[name] /= "model.safetensors"  # a published SAM is one file
    files["bert-base-uncased.vocab"] = tiny.save_tiny_vocabulary(folder)
    tiny_sam.save_tiny_sam3(folder / "sam3.sa-co")
    monkeypatch.setenv("RASA_WEIGHTS", str(folder))
    monkeypatch.setenv("RASA_CACHE", str(folder / "cache"))
    _patch_fetch(lambda name, **_: files[name], monkeypatch)
    return folder


def _write_ram(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasa_ram import _loading

    # The kinds that rasa_ram knows belong to the published list of tags, and this is another.
    other = {name: replace(entry, sha256="0" * 64) for name, entry in weights.checkpoints().items()}
    monkeypatch.setattr("rasa_ram.published.checkpoints", lambda: other)
    texts = {"ram-tags": NAMES, "ram-tags-chinese": NAMES, "ram-tag-thresholds": ["0.5"] * len(NAMES)}
    for name, lines in texts.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, family in {"ram-swin-l.14m": "ram", "ram-plus-swin-l.14m": "ram-plus"}.items():
        model = tiny_model(family)
        torch.save({"model": model.state_dict()}, folder / f"{name}.pth")
        monkeypatch.setitem(_loading._MODELS, name, lambda config=model.config: config)


def _patch_fetch(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights.fetch
    for reader in _READERS:
        importlib.import_module(reader)
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").startswith(("rasa.", "rasa_ram.")) and module.__dict__.get("fetch") is real:
            monkeypatch.setattr(module, "fetch", fake)
