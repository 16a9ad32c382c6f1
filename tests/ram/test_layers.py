"""The architecture of rasa_ram, read from its import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted((ROOT / "rasa_ram").rglob("*.py"))
SEEN_OF_RASA = {
    "_files", "_locks", "_suggest", "_torch", "_version", "errors", "arrays", "io", "ops", "weights",
    "types", "protocols",
}  # fmt: skip
MODELING_MAY_IMPORT = {"rasa.errors", "rasa._torch.dense", "rasa_ram.config", "rasa_ram.modeling"}
LEARNING = {"training", "data", "engine", "toy"}


def names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def part(path):
    return path.relative_to(ROOT / "rasa_ram").parts[0].removesuffix(".py")


def test_there_is_something_to_check():
    assert len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rasa_ram_sees_the_lower_layers_of_rasa(path):
    if part(path) == "cli":
        return
    seen = {name.split(".")[1] for name in names(path) if name.startswith("rasa.")}
    assert seen <= SEEN_OF_RASA


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_inference_never_imports_what_is_for_learning(path):
    if part(path) in LEARNING or part(path) == "cli":
        return
    parts = {name.split(".")[1] for name in names(path) if name.startswith("rasa_ram.")}
    assert not parts & LEARNING


@pytest.mark.parametrize(
    "path", [path for path in FILES if part(path) == "modeling"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_modules_know_nothing_but_torch_and_their_sizes(path):
    ours = {name for name in names(path) if name.split(".")[0] in {"rasa", "rasa_ram"}}
    assert all(name in MODELING_MAY_IMPORT or name.startswith("rasa_ram.modeling.") for name in ours)


def test_import_rasa_ram_loads_no_model_package():
    code = "import rasa_ram, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "torchvision", "timm", "transformers", "open_clip", "openvino"}
