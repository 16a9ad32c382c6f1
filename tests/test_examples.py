"""Examples, the notebook, and the code of README and docs: they run, with the real weights of `lite`."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rasa.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path, language):
    return [code for name, code in CODE.findall(path.read_text(encoding="utf-8")) if name == language]


@pytest.fixture
def lite(checkpoint_file):
    """Skip where the weights of `lite` are not cached."""
    from rasa.loading import preset_checkpoints

    for name in preset_checkpoints("lite"):
        checkpoint_file(name)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """An empty folder to work in, with the photos that the documents speak of."""
    shutil.copytree(ROOT / "examples" / "photos", tmp_path / "photos")
    shutil.copy(ROOT / "examples" / "photos" / "coffee.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_three_examples_of_a_page():
    assert len(EXAMPLES) >= 3
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, lite, workshop, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_quickstart_writes_what_it_says(lite, workshop):
    example = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))
    example["main"]("photo.jpg", "made")
    assert {path.name for path in (workshop / "made").iterdir()} == {"photo_annotated.png", "quickstart.jsonl"}


def test_the_documents_hold_code():
    assert len(DOCUMENTS) >= 3
    assert sum(len(blocks(path, "python")) for path in DOCUMENTS) >= 5


# The documents of RAM run with tiny models, in tests/ram/test_documents.py, and grounded-masks in tests/test_chain.py.
WITH_TINY = re.compile(r"ram-|grounded-masks")
WITH_LITE = [path for path in DOCUMENTS if blocks(path, "python") and not WITH_TINY.match(path.name)]


@pytest.mark.parametrize("path", WITH_LITE, ids=lambda path: path.name)
def test_code_of_documents_runs(path, lite, workshop):
    names = {"__name__": "__document__"}
    for block in blocks(path, "python"):
        exec(compile(block, f"{path.name}: {block.splitlines()[0]}", "exec"), names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_documents_are_there(path):
    lines = "\n".join(blocks(path, "bash") + blocks(path, "console")).splitlines()
    commands = {tuple(re.findall(r"[\w-]+", line)[1:2]) for line in lines if re.match(r"(\$ )?rasa \w", line)}
    assert {command[0] for command in commands if command} <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {match for line in lines for match in re.findall(r"^make ([a-z]+)", line)} <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not link.startswith(("http:", "https:")):
            assert (path.parent / link).exists(), link


def test_the_notebook_runs_and_is_stored_without_output(lite, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    path = ROOT / "notebooks" / "quickstart.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "notebooks").mkdir()
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    kinds = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert "image/png" in kinds


def test_examples_say_what_is_missing_without_the_extra(tmp_path):
    """`import rasa.draw` where supervision is not installed."""
    (tmp_path / "supervision.py").write_text("raise ImportError('no module named supervision')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", "import rasa.draw"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'install the extra "lite"' in done.stderr.splitlines()[-1]
