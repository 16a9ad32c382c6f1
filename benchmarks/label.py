"""What labelling a dataset costs beside its models, and what two workers, exports and the report take.

    python benchmarks/label.py [--part overhead|export|workers|report] [--photos FOLDER] [--format coco] [--quick]

overhead: 10,000 photos (those of the folder, each copy made a file of its own by bytes behind its end) through a
    pipeline that costs nothing: images a second from the call to its return (listing, hashing, starting the worker,
    decoding, storing), and the peak memory of both halves of the run, summed over the process that drives and its
    worker (resident set, sampled from /proc every 20 ms).
report: the report of that dataset, its seconds, size and peak memory in a process of its own.
export: a dataset of 100,000 small images and 1,000,000 masks into a format, in a process of its own: seconds and
    peak memory.
workers: the preset lite over the photos by one worker and by two: images a second, from the first image to the last
    and with loading, and whether both wrote the same bytes. Needs the weights of lite.

Without --part all run. --quick takes a hundredth of the images and annotations, to see that it works: its figures
mean nothing. Linux only. Exits with 1 if a figure misses its goal, unless --quick.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import rasa  # noqa: E402  (the checkout comes first)
from rasa.labelling.progress import Progress  # noqa: E402
from rasa.testing import FakeTagger  # noqa: E402

PHOTOS = Path(os.environ.get("RASA_SHARED", ROOT.parent / "shared")) / "photos"
IMAGES, ANNOTATIONS, PER_IMAGE = 10_000, 1_000_000, 10
LEAST_RATE, MOST_GROWTH, MOST_EXPORT, LEAST_SPEEDUP = 400.0, 1.05, 1e9, 1.7  # the goals of the issue
PARTS = ("overhead", "report", "export", "workers")
CLASSES = [f"class {i}" for i in range(80)]


def zero_cost() -> rasa.Pipeline:
    """Two constant tags; workers build it by its name."""
    return rasa.Pipeline(FakeTagger())


# Measuring.


@dataclass
class Memory:
    """Peak resident memory of this process and all below it, sampled in a thread, by half of the run."""

    total: int
    done: int = 0
    peaks: dict[str, int] = field(default_factory=lambda: {"first half": 0, "second half": 0})
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, progress: Progress) -> None:
        self.done = progress.done

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            half = "first half" if self.done <= self.total / 2 else "second half"
            self.peaks[half] = max(self.peaks[half], sum(map(resident, family(os.getpid()))))


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def resident(pid: int, key: str = "VmRSS") -> int:
    """Resident memory of a process in bytes now, or at most with ``VmHWM``; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def in_its_own_process(part: str, *arguments: object) -> None:
    """Run ``part`` of this script in a fresh process, whose peak memory is its own."""
    command = [sys.executable, __file__, "--alone", part, *map(str, arguments)]
    subprocess.run(command, check=True)


def verdict(what: str, *, good: bool) -> bool:
    print(f"  {'ok  ' if good else 'MISS'} {what}", flush=True)
    return good


# The parts.


def repeated(photos: Path, folder: Path, count: int) -> Path:
    """``count`` files of ``photos``, each with bytes of its own behind the end of the JPEG."""
    contents = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))]
    if not contents:
        raise SystemExit(f"no photos in {photos}; give --photos, or set RASA_SHARED")
    for i in range(count):
        home = folder / f"{i // 1000:03d}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{i:06d}.jpg").write_bytes(contents[i % len(contents)] + i.to_bytes(4, "big"))
    return folder


def measure_overhead(photos: Path, count: int, work: Path) -> bool:
    source = repeated(photos, work / "many", count)
    listed: list[float] = []

    def watch(progress: Progress) -> None:
        memory.watch(progress)
        if progress.state == "labelling" and not listed:
            listed.append(time.perf_counter())

    start = time.perf_counter()
    with Memory(count) as memory:
        dataset = rasa.label(source, work / "set", pipeline="label:zero_cost", watch=watch)
    wall = time.perf_counter() - start
    decode = sum(seconds for _, stage, seconds in dataset.timings() if stage == "decode")
    first, second = memory.peaks["first half"], memory.peaks["second half"]
    print(f"overhead: {count} images, one worker, {wall:.1f} s; {decode:.1f} s of decoding in its threads")
    print(f"  hashing, listing and starting the worker {listed[0] - start:.1f} s" if listed else "  nothing was listed")
    print(f"  {count / wall:.0f} images/s, listing, hashing, decoding and storing included")
    print(f"  peak memory {first / 1e6:.0f} MB in the first half, {second / 1e6:.0f} MB in the second")
    return all(
        [
            verdict(f"all {count} images are labelled", good=dataset.counts.ok == count),
            verdict(f"at least {LEAST_RATE:.0f} images/s", good=count / wall >= LEAST_RATE),
            verdict("memory of the second half less than 5 % above the first", good=second < MOST_GROWTH * first),
        ]
    )


def measure_report(work: Path) -> None:
    from rasa.labelling.dataset import open_dataset  # noqa: PLC0415
    from rasa.labelling.report import write_report  # noqa: PLC0415

    start = time.perf_counter()
    written = write_report(open_dataset(work / "set"), work / "report.html")
    wall, peak = time.perf_counter() - start, resident(os.getpid(), "VmHWM")
    print(f"report: {written.images} images in {wall:.1f} s, {written.bytes / 1e6:.1f} MB, peak {peak / 1e6:.0f} MB")


def synthetic(count: int, work: Path) -> Path:
    """A dataset of images of 160 x 120 pixels with ten objects each; the labels of a few hundred, over and over."""
    from rasa.labelling.plan import plan_images  # noqa: PLC0415
    from rasa.labelling.runs import start_run  # noqa: PLC0415
    from rasa.labelling.store import LabelledRow, write_shard  # noqa: PLC0415
    from rasa.testing import sample_image  # noqa: PLC0415

    (work / "one").mkdir()
    PIL.Image.fromarray(sample_image(height=120, width=160).pixels).save(work / "one" / "photo.jpg")
    random = np.random.default_rng(0)
    pool = [rasa.Result("x", (120, 160), instances=ellipses(random)) for _ in range(min(count, 500))]
    plan = plan_images(work / "synthetic", [repeated(work / "one", work / "files", count)])
    run = start_run(work / "synthetic", {"stages": []})
    for shard in plan.shards:
        rows = [LabelledRow.of(image, pool[i % len(pool)]) for i, image in enumerate(shard.images)]
        write_shard(work / "synthetic", run, shard, rows)
    return work / "synthetic"


def ellipses(random: np.random.Generator) -> rasa.Instances:
    rows, columns = np.mgrid[:120, :160]
    centres = random.uniform((20, 20), (100, 140), (PER_IMAGE, 2))
    radii = random.uniform(4, 19, (PER_IMAGE, 2))
    away = [((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 for (y, x), (a, b) in zip(centres, radii, strict=True)]
    boxes = np.hstack([(centres - radii)[:, ::-1], (centres + radii)[:, ::-1]]).astype(np.float32)
    labels = tuple(CLASSES[k] for k in random.integers(0, len(CLASSES), PER_IMAGE))
    scores = random.uniform(0.3, 1, PER_IMAGE).astype(np.float32)
    return rasa.Instances(boxes, scores, labels, np.array(away) <= 1)


def measure_export(format_name: str, count: int, dataset: Path) -> bool:
    from rasa.labelling.export import export  # noqa: PLC0415

    start = time.perf_counter()
    report = export(dataset, dataset.parent / "exports", to=[format_name])[format_name]
    wall, peak = time.perf_counter() - start, resident(os.getpid(), "VmHWM")
    print(f"export {format_name}: {report.objects} annotations of {report.images} images in {wall:.0f} s")
    print(f"  {report.objects / wall:.0f} annotations/s, peak memory {peak / 1e6:.0f} MB")
    return all(
        [
            verdict(f"all {count} annotations are written", good=report.objects == count),
            verdict("less than 1 GB of memory", good=peak < MOST_EXPORT),
        ]
    )


def measure_workers(photos: Path, count: int, work: Path) -> bool:
    chosen = [str(path) for path in sorted(photos.glob("*.jpg"))[:count]]
    walls, steady, contents = {}, {}, {}
    for workers in (1, 2):
        out, moments = work / f"lite-{workers}", []

        def watch(progress: Progress, moments: list[tuple[float, int]] = moments) -> None:
            if progress.done:
                moments.append((time.perf_counter(), progress.done))

        start = time.perf_counter()
        rasa.label(chosen, out, preset="lite", workers=workers, batch_size=1, shard_size=4, watch=watch)
        walls[workers] = time.perf_counter() - start
        (first, before), (last, done) = moments[0], moments[-1]
        steady[workers] = (done - before) / max(last - first, 1e-9)
        contents[workers] = digest_of(out / "labels")
        print(f"workers: {workers}: {len(chosen) / walls[workers]:.2f} images/s with loading", end=", ")
        print(f"{steady[workers]:.2f} images/s from the first image to the last", flush=True)
    speedup = steady[2] / steady[1]
    print(f"  {speedup:.2f} times as fast by two workers, {walls[1] / walls[2]:.2f} times with loading")
    return all(
        [
            verdict(f"at least {LEAST_SPEEDUP} times as fast by two workers", good=speedup >= LEAST_SPEEDUP),
            verdict("the same bytes", good=contents[1] == contents[2]),
        ]
    )


def digest_of(folder: Path) -> dict[str, str]:
    """sha256 of every file."""
    paths = sorted(path for path in folder.rglob("*.parquet"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="again for several")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--format", action="append", help="of the export; again for several; coco unless given")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)  # a part that measures its own process
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(*arguments.alone)
        return
    share = 100 if arguments.quick else 1
    wanted = arguments.part or list(PARTS)
    with tempfile.TemporaryDirectory(prefix="rasa-bench-") as folder:
        work, good = Path(folder), []
        steps: dict[str, Callable[[], bool]] = {
            "overhead": lambda: measure_overhead(arguments.photos, IMAGES // share, work),
            "export": lambda: measure_exports(arguments.format or ["coco"], ANNOTATIONS // share, work),
            "workers": lambda: measure_workers(arguments.photos, 8 if arguments.quick else 100, work),
        }
        if "report" in wanted:
            wanted = ["overhead", "report", *(part for part in wanted if part not in {"overhead", "report"})]
            steps["report"] = lambda: succeeds("report", work)
        good = [steps[part]() for part in wanted]
    if not all(good) and not arguments.quick:
        raise SystemExit(1)


def measure_exports(formats: list[str], count: int, work: Path) -> bool:
    dataset = synthetic(count // PER_IMAGE, work)
    good = [succeeds("export", name, count, dataset) for name in formats]
    return all(good)


def succeeds(part: str, *arguments: object) -> bool:
    try:
        in_its_own_process(part, *arguments)
    except subprocess.CalledProcessError:
        return False
    return True


def run_alone(part: str, *arguments: str) -> None:
    if part == "report":
        measure_report(Path(arguments[0]))
    elif not measure_export(arguments[0], int(arguments[1]), Path(arguments[2])):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
