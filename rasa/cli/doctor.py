"""``rasa doctor``: one look at the installation."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from rasa._version import __version__
from rasa.cli._console import print_table, say
from rasa.cli._needs import figures, lines, needs
from rasa.cli._readiness import DISTRIBUTION, readiness
from rasa.config import load_preset_config, presets
from rasa.weights import cache_folder

app = typer.Typer()

# "torch>=2.10; extra == 'lite'": the name, and the extra that asks for it.
_REQUIREMENT = re.compile(r"""(?P<name>[\w.-]+).*;.*extra\s*==\s*["'](?P<extra>[\w-]+)["']""")
_CLASH = "rasa"  # the chatbot framework: its import package is called rasa too
_GB = 10**9


@app.command()
def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Say what is installed and which presets can run here.

    For each preset: the disk and memory that its models take, how long a photo took where that was measured, and the
    commands that bring what is missing. Memory counts the weights: parameters times the bytes of the number type.
    Exits with 0 if at least one preset can run now, without the network, and with 1 otherwise.
    """
    found = examine()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    if not any(preset["ready"] for preset in found["presets"].values()):
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """What ``rasa doctor`` reports, as plain JSON values; imports PyTorch if it is installed."""
    return {
        "rasa": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": {name: _version(name) for name in ("numpy", "pillow", "typer", "rich")},
        "extras": _extras(),
        "device": _device(),
        "cache": _cache(),
        "presets": {name: _preset(name) for name in presets()},
        "warnings": _warnings(),
    }


def _preset(name: str) -> dict[str, Any]:
    config = load_preset_config(name)
    measured = figures().get(name)
    return {
        **readiness(config.models).to_dict(name),
        **needs(config).to_dict(),
        "measured": None if measured is None else asdict(measured),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, dict[str, str | None]]:
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        # An extra made of other extras, such as "all", says nothing that these do not say.
        if match and match["name"] != DISTRIBUTION:
            extras.setdefault(match["extra"], {})[match["name"]] = _version(match["name"])
    return extras


def _device() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cores": cores, "torch": None, "threads": None, "cuda": [], "error": None}
    if find_spec("torch") is None:
        return found
    try:
        import torch

        found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        found["cuda"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    # A broken PyTorch fails in many ways, and telling of it is what this command is for.
    except Exception as error:  # noqa: BLE001
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _cache() -> dict[str, Any]:
    folder = cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    existing: Path = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return {
        "folder": str(folder),
        "used_bytes": sum(path.stat().st_size for path in files),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _warnings() -> list[str]:
    warnings = []
    if _version(_CLASH) is not None:
        warnings.append(
            f'the chatbot framework "{_CLASH}" is installed here, and its package has the same name; '
            f"install {DISTRIBUTION} into an environment of its own"
        )
    if _version(DISTRIBUTION) is None:
        warnings.append(f"{DISTRIBUTION} is not installed, only importable: its extras are not known here")
    return warnings


def _print(found: dict[str, Any]) -> None:
    device, cache = found["device"], found["cache"]
    gpus = ", ".join(device["cuda"]) or "none seen"
    rows = [
        ("rasa", f"{found['rasa']}, in {Path(__file__).parents[1]}"),
        ("python", f"{found['python']['version']}, {found['python']['executable']}"),
        ("platform", found["python"]["platform"]),
        ("packages", _versions(found["packages"])),
        *((f"extra {name}", _versions(packages)) for name, packages in found["extras"].items()),
        ("processor", f"{device['cores']} cores, {device['threads'] or 'no'} PyTorch threads"),
        ("PyTorch", device["error"] or device["torch"] or "not installed"),
        ("CUDA", gpus),
        ("cache", f"{cache['folder']}: {cache['used_bytes'] / _GB:.2f} GB, {cache['free_bytes'] / _GB:.1f} GB free"),
    ]
    for name, state in found["presets"].items():
        verdict = "can run" if state["ready"] else "cannot run yet"
        measured = [f"time: {figures()[name]}"] if name in figures() else []
        takes = [*lines(load_preset_config(name)), *measured]
        rows.append((f"preset {name}", "\n".join([verdict, *takes, *state["cures"]])))
    print_table(("what", "state"), rows)


def _versions(packages: dict[str, str | None]) -> str:
    there = [f"{name} {version}" for name, version in packages.items() if version is not None]
    missing = [name for name, version in packages.items() if version is None]
    return ", ".join(there) + (f"{'; ' if there else ''}missing: {', '.join(missing)}" if missing else "")
