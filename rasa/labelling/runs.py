"""run.json: what each run of a dataset was made with, and which of them is current."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasa._locks import file_lock
from rasa.errors import FormatError, InputError, RasaWarning
from rasa.io.find import StrPath
from rasa.labelling._files import remove_stale_parts, write_atomically
from rasa.labelling.fingerprint import canonical_json, fingerprint_of

SCHEMA = "rasa.dataset/1"
FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One way in which the images of a dataset were labelled.

    Attributes:
        fingerprint: Its name: 16 hexadecimal digits.
        provenance: Of its pipeline: versions, configuration, stages with checkpoint hashes and thresholds; of a
            derived run, what was done.
        extra: What decides results beside the pipeline.
        parent: Fingerprint of the run that it was derived from; None for a run of a pipeline.
    """

    fingerprint: str
    provenance: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs of a dataset.

    Attributes:
        current: Fingerprint of the run that was started last; None if there is none.
        runs: By fingerprint, in order of their first start.
    """

    current: str | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)


def start_run(
    dataset: StrPath,
    provenance: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> str:
    """Note a run in run.json, make it the current one, and return its fingerprint.

    Starting the same run again changes nothing but that it is current; other versions of packages than at its
    first start give a :class:`rasa.errors.RasaWarning`.

    Args:
        dataset: The folder; made if it is not there.
        provenance: Of a :class:`rasa.Pipeline`; plain JSON values.
        extra: Plain JSON values that decide results beside it.
        parent: Fingerprint of the run that this one is derived from.

    Raises:
        InputError: If a value is no plain JSON.
        FormatError: If the run.json that is there is damaged.
        OutputError: If it cannot be written.
    """
    folder, decides = Path(dataset), {**(extra or {}), **({} if parent is None else {"parent": parent})}
    canonical_json(provenance)  # also of what does not decide
    run = Run(fingerprint_of(provenance, extra=decides), provenance, extra or {}, parent)
    with file_lock(folder / "locks" / "run.lock"):
        for part in (folder, folder / "labels" / run.fingerprint, folder / "timings" / run.fingerprint):
            remove_stale_parts(part)
        known = read_runs(folder)
        first = known.runs.get(run.fingerprint)
        if first is not None:
            _warn_of_versions(first, run)
        if first is None or known.current != run.fingerprint:
            _write(folder, Runs(run.fingerprint, {**known.runs, run.fingerprint: first or run}))
    return run.fingerprint


def read_runs(dataset: StrPath) -> Runs:
    """Read run.json; a folder without one has no runs.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    path = Path(dataset) / FILE
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Runs()
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable as JSON: {error}") from error
    try:
        if values["schema"] != SCHEMA:
            raise FormatError(f"{path}: schema is {values['schema']!r}, expected {SCHEMA!r}")
        runs = {str(name): Run(str(name), **values["runs"][name]) for name in values["runs"]}
        current = values["current"]
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: malformed: {type(error).__name__}: {error}") from error
    if current is not None and current not in runs:
        raise FormatError(f"{path}: the current run {current!r} is none of its runs")
    return Runs(current, runs)


def find_run(dataset: StrPath, name: str | None = None) -> Run:
    """The run called ``name``, of which the first digits are enough; the current one if it is None.

    Raises:
        InputError: If the folder has no runs, or none or several are called so.
        FormatError: If run.json is damaged.
    """
    known = read_runs(dataset)
    if known.current is None:
        raise InputError(f"{dataset} is no labelled dataset: it has no {FILE}; make one with `rasa label`")
    if name is None:
        return known.runs[known.current]
    fitting = [run for run in known.runs.values() if name and run.fingerprint.startswith(name)]
    if len(fitting) != 1:
        how = "several runs" if fitting else "no run"
        raise InputError(f"{dataset} has {how} {name!r}; its runs: {', '.join(known.runs)}")
    return fitting[0]


def _write(folder: Path, runs: Runs) -> None:
    values = {
        "schema": SCHEMA,
        "current": runs.current,
        "runs": {
            run.fingerprint: {"provenance": run.provenance, "extra": run.extra, "parent": run.parent}
            for run in runs.runs.values()
        },
    }
    with write_atomically(folder / FILE) as file:
        file.write((json.dumps(values, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii"))


def _warn_of_versions(first: Run, again: Run) -> None:
    before, now = (run.provenance.get("versions", {}) for run in (first, again))
    changed = [f"{name} {before[name]} -> {now[name]}" for name in before if name in now and before[name] != now[name]]
    if changed:
        message = (
            f"run {first.fingerprint} goes on with other versions: {', '.join(changed)}; scores may differ slightly"
        )
        warnings.warn(message, RasaWarning, stacklevel=3)
