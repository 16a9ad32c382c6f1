"""Images per second that training's loaders give, and where the time of one image goes.

    python benchmarks/data_loading.py [--photos FOLDER] [--images 256] [--rounds 5] [--workers 0 1 2] [--quick]

Without --photos, JPEGs of 500 x 375 are made (smooth colours with noise, about 60 kB as photos of COCO have). Loaders
take turns within a round; figures are medians over the rounds, and ratios are medians of the ratios within a round.
Workers are started, and have given a first epoch, before anything is timed. The peer is torchvision's own pipeline in
one process: the same crop and flip, its RandAugment(2, 5), which draws from more operations, and normalisation; one
view of an image, no records, no captions. Files are in the page cache: disks are not measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torchvision.transforms import v2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rasa.io.images import to_image  # noqa: E402  (the checkout comes first)
from rasa.types import Image  # noqa: E402
from rasa_ram.data.augment import Views, draw_crop, training_view  # noqa: E402
from rasa_ram.data.augment_operations import apply_change, draw_operations, to_change  # noqa: E402
from rasa_ram.data.loader import LoaderSettings, TrainingLoader  # noqa: E402
from rasa_ram.data.records import Record  # noqa: E402
from rasa_ram.data.shard_source import ShardLoader  # noqa: E402
from rasa_ram.data.shards_writer import write_shards  # noqa: E402
from rasa_ram.preprocess import INFERENCE, preprocess  # noqa: E402

TAGS, BATCH = 4585, 16
VIEWS = {
    "224, no teacher": Views(size=224),
    "224 and teacher 224": Views(size=224, teacher_size=224),
    "384 and teacher 224": Views(size=384, teacher_size=224),
    "384 and teacher 224, independent": Views(size=384, teacher_size=224, crops="independent"),
}


def main() -> int:
    """Run the benchmark; figures go to stdout."""
    arguments = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RASA_CACHE"] = os.fspath(Path(scratch) / "cache")
        folder = arguments.photos or made_photos(Path(scratch) / "photos", min(arguments.images, 64))
        names = sorted(path.name for path in folder.glob("*.jpg"))
        if not names:
            sys.exit(f"{folder} has no *.jpg; pass a folder of photos, or leave --photos away")
        records = [Record(image_path=names[i % len(names)], tag_ids=(i % TAGS,)) for i in range(arguments.images)]
        describe(folder, names)
        show_parts([folder / name for name in names[:32]])
        show_loaders(records, folder, Path(scratch), arguments)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of *.jpg; made ones if not given")
    parser.add_argument("--images", type=int, default=256, help="images of an epoch, in whole batches of 16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="64 images, one round, workers 0 and 1")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.rounds, arguments.workers = 64, 1, [0, 1]
    return arguments


def made_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), PIL.Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.normal(0, 6, (375, 500, 1))).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(noisy).save(folder / f"{i:04d}.jpg", quality=90)
    return folder


def describe(folder: Path, names: Sequence[str]) -> None:
    sizes = [to_image(folder / name).size for name in names]
    kilobytes = statistics.mean((folder / name).stat().st_size for name in names) / 1000
    height, width = (statistics.median(size[axis] for size in sizes) for axis in (0, 1))
    print(f"{len(names)} JPEGs, median {width:.0f} x {height:.0f}, mean {kilobytes:.0f} kB; one thread a process\n")


def milliseconds(run: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


def show_parts(paths: Sequence[Path]) -> None:
    """Time of each part for one image: the mean over images of the best of three."""
    parts: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for path in paths:
        data = path.read_bytes()
        image = to_image(data, name=path.name)
        source = PIL.Image.fromarray(image.pixels)
        box = draw_crop(rng, image.size, Views())
        crop = source.crop(box)
        parts.setdefault("read the file", []).append(milliseconds(path.read_bytes))
        parts.setdefault("decode", []).append(milliseconds(lambda d=data, p=path: to_image(d, name=p.name)))
        for side in (224, 384):
            square = crop.resize((side, side), PIL.Image.Resampling.BICUBIC)
            pixels = Image(np.asarray(square))
            drawn = draw_operations(rng, 2, 5)
            runs = {
                f"crop and resize to {side}": lambda b=box, s=side, p=source: p.crop(b).resize(
                    (s, s), PIL.Image.Resampling.BICUBIC
                ),
                f"operations at {side}": lambda o=drawn, p=square: operate(o, p),
                f"normalise {side}": lambda i=pixels, s=side: preprocess([i], s, normalisation=INFERENCE),
            }
            for name, run in runs.items():
                parts.setdefault(name, []).append(milliseconds(run))
        for name, views in VIEWS.items():
            seed = int(rng.integers(1000))
            whole = milliseconds(lambda i=image, v=views, s=seed: training_view(i, v, np.random.default_rng(s)))
            parts.setdefault(f"all after decoding: {name}", []).append(whole)
    print("one image, milliseconds")
    for name, times in parts.items():
        print(f"  {name:<54}{statistics.mean(times):7.2f}")
    print()


def operate(drawn: Sequence[tuple[str, float]], picture: PIL.Image.Image) -> None:
    for name, amount in drawn:
        change = to_change(name, amount, picture)
        picture = picture if change is None else apply_change(picture, change)


def show_loaders(records: Sequence[Record], folder: Path, scratch: Path, arguments: argparse.Namespace) -> None:
    shards = write_shards(
        records, scratch / "shards", read_image=lambda r: (folder / r.image_path).read_bytes(), per_shard=100
    )
    epochs: dict[str, Callable[[int], object]] = {
        f"torchvision, {side}, one process": peer(records, folder, side) for side in (224, 384)
    }
    loaders: list[TrainingLoader | ShardLoader] = []
    for views_name, views in VIEWS.items():
        for workers in arguments.workers:
            settings = LoaderSettings(batch_size=BATCH, num_tags=TAGS, workers=workers, views=views)
            loaders.append(TrainingLoader(records, folder, settings=settings))
            epochs[f"{views_name}, {workers} workers"] = reading(loaders[-1])
    for workers in arguments.workers:
        settings = LoaderSettings(batch_size=BATCH, num_tags=TAGS, workers=workers)
        loaders.append(ShardLoader([shard.path for shard in shards], settings=settings))
        epochs[f"shards, 224, no teacher, {workers} workers"] = reading(loaders[-1])
    speeds = measure(epochs, loaders, len(records) // BATCH * BATCH, arguments.rounds)
    first = next(iter(epochs))
    print(f"{'images per second':<56}{'median':>8}{'lowest':>8}{'highest':>9}{'ratio':>8}")
    for name, found in speeds.items():
        ratio = statistics.median(own / other for own, other in zip(found, speeds[first], strict=True))
        print(f"  {name:<54}{statistics.median(found):8.0f}{min(found):8.0f}{max(found):9.0f}{ratio:8.2f}")
    print(f"ratio: to {first}, in the same round")


def reading(loader: TrainingLoader | ShardLoader) -> Callable[[int], object]:
    def read(epoch: int) -> None:
        for _ in loader.batches(epoch):
            pass

    return read


def measure(
    epochs: dict[str, Callable[[int], object]],
    loaders: Sequence[TrainingLoader | ShardLoader],
    images: int,
    rounds: int,
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):  # the first one starts workers and fills caches
        for name, run in epochs.items():
            start = time.perf_counter()
            run(number)
            if number:
                speeds[name].append(images / (time.perf_counter() - start))
    for loader in loaders:
        loader.close()
    return speeds


def peer(records: Sequence[Record], folder: Path, side: int) -> Callable[[int], object]:
    transform = v2.Compose([
        v2.RandomResizedCrop(side, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.RandAugment(2, 5),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(INFERENCE.mean, INFERENCE.std),
    ])  # fmt: skip

    def read(_epoch: int) -> None:
        for start in range(0, len(records) // BATCH * BATCH, BATCH):
            paths = [folder / record.image_path for record in records[start : start + BATCH]]
            torch.stack([transform(PIL.Image.open(path).convert("RGB")) for path in paths])

    return read


if __name__ == "__main__":
    sys.exit(main())
