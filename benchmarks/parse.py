"""Captions per second that the caption parser reads in one process and in two.

    python benchmarks/parse.py [--captions 8000] [--processes 1 2] [--rounds 3] [--batch 256] [--quick]

Captions are made, and all differ: equal ones of a batch are read once. Settings take turns within a round; figures are
medians over the rounds, and ratios are medians of the ratios to the first setting within a round. Each process works
with one thread. Workers are started anew for every run, so the clock runs from an answer on by which all of them are
at work; until the first answer they load spaCy's model, which is told apart.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Before NumPy is imported: else the one process works with the threads of all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rasa_ram.engine.parse import CaptionParser, ParsedCaption  # noqa: E402  (the checkout comes first)
from rasa_ram.vocabulary import Vocabulary  # noqa: E402

_WORDS = {
    "object": "man woman boy girl dog cat horse bird car bus train bicycle table chair couch lamp pizza sandwich apple "
    "orange banana umbrella backpack hat helmet guitar laptop phone book clock vase flower tree sign bench kite "
    "surfboard skateboard ball bottle",
    "scene": "street park beach kitchen field forest station garden harbor stadium desert bridge",
    "attribute": "red blue green black white yellow wooden small large old young wet",
    "action": "hold ride carry watch wear paint push throw",
}
WORDS = {kind: words.split() for kind, words in _WORDS.items()}
DOING = ("holding", "riding", "carrying", "watching", "wearing", "painting", "pushing", "throwing")
PATTERNS = (
    "a {a} {n} {v} a {b} {m} on the {s}",
    "the {n} and a {b} {m} in a {s} next to a {o}",
    "the {n} is {v} a {m} near the {s}, and a {a} {o} stands behind it",
    "a photo of a {a} {n} without a {m} in front of a {b} {o}",
    "{a} {n} with a {b} {m} at the {s}",
)
BATCHES_TO_START = 4  # of each process, before the clock


def main() -> int:
    """Run the benchmark; figures go to stdout."""
    arguments = parse()
    vocabulary = made_vocabulary()
    started: dict[int, list[float]] = {processes: [] for processes in arguments.processes}
    speeds: dict[int, list[float]] = {processes: [] for processes in arguments.processes}
    for number in range(arguments.rounds):
        for processes in arguments.processes:
            parser = CaptionParser(vocabulary, processes=processes, batch_size=arguments.batch)
            first, speed = measure(parser, processes, number, arguments)
            started[processes].append(first)
            speeds[processes].append(speed)
    show(started, speeds)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=8000, help="captions of a run, on the clock")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256, help="captions that a process reads at once")
    parser.add_argument("--quick", action="store_true", help="500 captions, one round, batches of 32")
    arguments = parser.parse_args()
    if min(arguments.captions, arguments.rounds, arguments.batch, *arguments.processes) < 1:
        parser.error("all numbers must be at least 1")
    if arguments.quick:
        arguments.captions, arguments.rounds, arguments.batch = 500, 1, 32
    return arguments


def made_vocabulary() -> Vocabulary:
    rows = [(word, kind) for kind, words in WORDS.items() for word in words]
    return Vocabulary(tuple(word for word, _ in rows), kinds=tuple(kind for _, kind in rows))


def made_captions(count: int, seed: int) -> list[str]:
    """Captions of 9 to 16 words, all different."""
    rng = random.Random(seed)
    captions: dict[str, None] = {}
    while len(captions) < count:
        n, m, o = rng.sample(WORDS["object"], 3)
        a, b = rng.sample(WORDS["attribute"], 2)
        s, v = rng.choice(WORDS["scene"]), rng.choice(DOING)
        captions[rng.choice(PATTERNS).format(n=n, m=m, o=o, a=a, b=b, s=s, v=v)] = None
    return list(captions)


def measure(parser: CaptionParser, processes: int, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds to the first answer, and captions a second from when all processes are at work."""
    before = BATCHES_TO_START * processes * arguments.batch
    captions = made_captions(before + arguments.captions, seed)
    answers = parser.parse(captions)
    start = time.perf_counter()
    next(answers)
    first = time.perf_counter() - start
    take(answers, before - 1)
    start = time.perf_counter()
    found = take(answers, arguments.captions)
    if found < arguments.captions:
        sys.exit(f"the {arguments.captions} captions gave only {found} tags; the parser does not do its work")
    return first, arguments.captions / (time.perf_counter() - start)


def take(answers: Iterator[ParsedCaption], count: int) -> int:
    """Read the next answers; returns how many tags they have."""
    return sum(len(next(answers).ids) for _ in range(count))


def show(started: dict[int, list[float]], speeds: dict[int, list[float]]) -> None:
    reference = next(iter(speeds.values()))
    print(f"{'processes':<10}{'captions/s':>11}{'lowest':>8}{'highest':>9}{'ratio':>7}{'first answer, s':>17}")
    for processes, found in speeds.items():
        ratio = statistics.median(own / other for own, other in zip(found, reference, strict=True))
        print(
            f"{processes:<10}{statistics.median(found):11.0f}{min(found):8.0f}{max(found):9.0f}{ratio:7.2f}"
            f"{statistics.median(started[processes]):17.1f}"
        )
    print(f"ratio: to {next(iter(speeds))} in the same round; {os.cpu_count()} cores")


if __name__ == "__main__":
    sys.exit(main())
