"""The architecture, read from the import statements: who may import whom, and what stays lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["rasa"]

# Layer of each module below rasa; a module may import modules of lower layers and of its own row.
LAYERS = {
    "_version": 0, "errors": 0, "arrays": 0, "_suggest": 0,
    "ops": 1, "weights": 1, "_wheels": 1, "_hub": 1, "_sources": 1, "_files": 1, "_locks": 1, "_weight_folders": 1,
    "types": 2, "protocols": 2, "_torch": 2,
    "stages": 3, "io": 3, "formats": 3, "draw": 3, "testing": 3,
    "runner": 4, "pipeline": 4, "config": 4, "_model": 4, "_built_in": 4, "registry": 4, "loading": 4,
    "adapters": 5, "labelling": 5, "app": 5,
    "cli": 6, "__main__": 6, "__init__": 6,
}  # fmt: skip
ADAPTERS_MAY_IMPORT = 2
HEAVY = {"torch", "torchvision", "transformers", "timm", "open_clip", "cv2", "supervision", "segment_anything"}
HEAVY_ALLOWED = ("rasa/adapters/", "rasa/_torch/", "rasa/draw")


def modules():
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) >= 30, "the layer test found too few files to mean anything"
    return found


def top(dotted):
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path):
    """(module, at top level) of every import statement, TYPE_CHECKING blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, node in tree.body


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_layers_below(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = parts[1]
    assert module in LAYERS, f"{module} has no layer; give it one in tests/test_layers.py"
    for name, _ in imports_of(path):
        if name == "rasa_ram" or name.startswith("rasa_ram."):
            pytest.fail(f"{path}: rasa never imports rasa_ram; the registry knows it as text")
        if not (name == "rasa" or name.startswith("rasa.")):
            continue
        other = top(name)
        if module == "adapters":
            same_family = name.startswith(".".join(parts[:3]))
            assert same_family or LAYERS[other] <= ADAPTERS_MAY_IMPORT, f"{path}: an adapter may not import {name}"
        elif module == "cli":
            assert other != "adapters", f"{path}: models only through the registry"
        else:
            assert LAYERS[other] <= LAYERS[module], f"{path}: may not import {name}"
            assert other != "adapters", f"{path}: models only through the registry"
            assert other != "_torch" or module == "_torch", f"{path}: torch belongs to the adapters"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_at_the_edge_only(path):
    name = path.relative_to(ROOT).as_posix()
    if name.startswith(HEAVY_ALLOWED):
        return
    heavy = [module for module, at_top in imports_of(path) if at_top and module.split(".")[0] in HEAVY]
    assert not heavy, f"{name} imports {heavy}"


def loaded_after(*arguments):
    code = f"import sys; sys.argv = ['rasa', *{list(arguments)[1:]!r}]\n{arguments[0]}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_import_rasa_loads_nothing_heavy():
    assert not loaded_after("import rasa") & (HEAVY | {"numpy", "PIL", "rich", "typer"})


def test_the_public_names_load_numpy_and_pillow_only():
    loaded = loaded_after("import rasa\nfor name in rasa.__all__: getattr(rasa, name)")
    assert "numpy" in loaded
    assert "PIL" in loaded
    assert not loaded & (HEAVY | {"matplotlib", "scipy"})


def test_help_loads_nothing_heavy():
    code = "import rasa.cli\ntry: rasa.cli.main()\nexcept SystemExit as stop: assert not stop.code"
    assert not loaded_after(code, "--help") & HEAVY
