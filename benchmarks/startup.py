"""Seconds from nothing to `import rasa` and to the help of the command line, in fresh interpreters.

    python benchmarks/startup.py [--runs 9] [--json]

Each command is started `--runs` times in turn with the others, so that a busy machine is
unfair to none. The limits are those of the project's promise; the script exits with 1 above them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is measured: (arguments of the interpreter, limit in seconds or None).
CASES = {
    "bare interpreter": (["-c", "pass"], None),
    "import rasa": (["-c", "import rasa"], 0.25),
    "import all public names": (["-c", "import rasa\nfor name in rasa.__all__: getattr(rasa, name)"], None),
    "rasa --version": (["-m", "rasa", "--version"], None),
    "rasa --help": (["-m", "rasa", "--help"], 0.6),
    "rasa run --help": (["-m", "rasa", "run", "--help"], None),
}


def seconds_of(arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(runs):
    for arguments, _ in CASES.values():
        seconds_of(arguments)  # fills the file cache, and writes the byte code
    times = {name: [] for name in CASES}
    for _ in range(runs):
        for name, (arguments, _) in CASES.items():
            times[name].append(seconds_of(arguments))
    return {
        name: {"median_s": statistics.median(values), "best_s": min(values), "limit_s": CASES[name][1]}
        for name, values in times.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.runs)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print(
            f"{'':26}{'median':>8}{'best':>8}{'limit':>8}   seconds,"
            f" Python {sys.version.split()[0]}, {os.cpu_count()} cores"
        )
        for name, figure in figures.items():
            limit = "" if figure["limit_s"] is None else f"{figure['limit_s']:.2f}"
            print(f"{name:26}{figure['median_s']:8.3f}{figure['best_s']:8.3f}{limit:>8}")
    return any(figure["limit_s"] is not None and figure["median_s"] > figure["limit_s"] for figure in figures.values())


if __name__ == "__main__":
    sys.exit(main())
