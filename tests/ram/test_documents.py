"""The how-to pages of RAM: their code runs, with tiny models in place of the published ones."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rasa_ram import _loading, published, text_encoder, tokenizer
from rasa_ram.builders import build
from rasa_ram.config import TextConfig
from tests.ram.hash_encoder import HashEncoder
from tests.ram.tiny import NAMES, tiny_model

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((ROOT / "docs" / "how-to").glob("ram-*.md"))
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

WORDS = ["a", "picture", "of", "cup", "table", "person", "|", "on", "in", "the"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXT = TextConfig(vocab_size=len(PIECES) + 2, width=24, layers=3, heads=4, intermediate=48, max_positions=48)
TAG2TEXT_NAMES = (*published.denied_tags("tag2text-swin-b.14m"), "person", "man", "woman", "cup", "table")


def tiny_published(family):
    """A tiny model in place of a published one, with the captioner that Tag2Text has."""
    model = tiny_model(family)
    if family != "tag2text":
        return model
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build(replace(model.config, text=TEXT))


@pytest.fixture
def as_published(tmp_path, monkeypatch):
    """What the pages fetch: three tiny models and their lists, under the names of the published ones."""
    files = {
        "ram-tags": "\n".join(NAMES),
        "ram-tags-chinese": "\n".join(NAMES),
        "ram-tag-thresholds": "\n".join(["0.5"] * len(NAMES)),
        "tag2text-tags": "\n".join(TAG2TEXT_NAMES),
        tokenizer.VOCABULARY: "\n".join(PIECES) + "\n",
    }
    shelf = tmp_path / "published"
    shelf.mkdir()
    for name, text in files.items():
        (shelf / f"{name}.txt").write_text(text, encoding="utf-8")
    models = {"ram-swin-l.14m": "ram", "ram-plus-swin-l.14m": "ram-plus", "tag2text-swin-b.14m": "tag2text"}
    for name, family in models.items():
        model = tiny_published(family)
        torch.save({"model": model.state_dict()}, shelf / f"{name}.pth")
        monkeypatch.setitem(_loading._MODELS, name, lambda config=model.config: config)
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    for module in (_loading.weights, published, tokenizer):
        monkeypatch.setattr(module, "fetch", lambda name: next(shelf.glob(f"{name}.*")))
    # The kinds of tags that rasa_ram knows belong to the published lists, and these are others.
    other = {name: replace(entry, sha256="0" * 64) for name, entry in published.checkpoints().items()}
    monkeypatch.setattr(published, "checkpoints", lambda: other)
    monkeypatch.setattr(text_encoder, "load_text_encoder", lambda device: HashEncoder())
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "examples" / "photos" / "coffee.jpg", work / "photo.jpg")
    shutil.copytree(ROOT / "examples" / "photos", work / "photos")
    shutil.copy(shelf / "ram-swin-l.14m.pth", work / "ram_swin_large_14m.pth")
    monkeypatch.chdir(work)


def test_there_are_pages():
    assert len(PAGES) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs(page, as_published, capsys):
    if page.stem == "ram-faster":
        pytest.importorskip("openvino", reason='the extra "openvino" is not installed')
    names = {"__name__": "__document__"}
    blocks = CODE.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)
    assert capsys.readouterr().out.strip()
