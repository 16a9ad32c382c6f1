"""Speed, memory and agreement of the RAM tagger, each mode beside the bare backbone, in one run.

    python benchmarks/ram.py [--model tiny|swin-b|swin-l] [--quick] [--threads 2] [--skip-openvino] [--photos FOLDER]

Weights are made by the rule of the reference numbers (tests/ram/reference.py), not trained: speed and rounding are
those of the real model, agreement on trained weights may be better or worse. Compared runs take turns (A B C A B C);
figures are medians, ratios are medians of the ratios within a turn. The backbone is timm's Swin, eager, without a
classifier; the tagger's time includes preprocessing of 384 x 384 photos (224 x 224 for tiny) and picking the tags.
Memory is the peak of a process of its own above what it held with the model loaded (Linux). Exits with 1 if a target
is missed by swin-l without --quick; for the other sizes and --quick the targets are shown only.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from timm.models.swin_transformer import SwinTransformer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rasa.types import Image  # noqa: E402  (the checkout comes first)
from rasa_ram import builders  # noqa: E402
from rasa_ram._names import weight_table  # noqa: E402
from rasa_ram.config import RamConfig, SwinConfig  # noqa: E402
from rasa_ram.modeling.ram import Ram  # noqa: E402
from rasa_ram.preprocess import preprocess, resize  # noqa: E402
from rasa_ram.tagger import THRESHOLD, RamTagger  # noqa: E402
from rasa_ram.vocabulary import Vocabulary  # noqa: E402

SHARED = Path(os.environ.get("RASA_SHARED", ROOT.parent / "shared"))
FEW_TAGS, MANY_TAGS = 200, 100_000
MEMORY_LIMIT_GB = 6.0
# Without rasa._torch.dense: what eager PyTorch is elsewhere, and what the targets of OpenVINO were set against.
PLAIN = "eager float32, torch's own dense layers"
# The smallest of Swin's published sizes (arXiv:2103.14030), with the full tag decoder.
TINY = SwinConfig(image_size=224, embed_dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7)
CONFIGS = {
    "tiny": RamConfig(family="ram", vision=TINY),
    "swin-b": builders.ram_swin_b_384(),
    "swin-l": builders.ram_swin_l_384(),
}

missed: list[str] = []


class RandomTexts:
    """A text encoder for tags that need no meaning."""

    identity = "random"

    def prompts(self, tag: str) -> Sequence[str]:
        return (tag,)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        noise = np.random.default_rng(zlib.crc32(texts[0].encode()))
        return noise.standard_normal((len(texts), 512), dtype=np.float32)


def build_by_rule(config: RamConfig) -> Ram:
    from tests.ram.reference import Constants, rule_weight  # noqa: PLC0415  (needs pytest; memory runs do without)

    # Of the full-size model (reference README, section 2).
    rule = Constants(seed=7, fc_gain=3.0, fc_bias=-2.9)
    model = builders.build(config)
    tensors = {
        weight.name: torch.from_numpy(rule_weight(weight.source, weight.source_shape, rule)).reshape(weight.shape)
        for weight in weight_table(config).values()
    }
    absent = model.load_state_dict(tensors, strict=False)
    if absent.unexpected_keys or set(absent.missing_keys) & {name for name, _ in model.named_parameters()}:
        raise SystemExit(f"the rule left weights out: {absent}")
    return model


def build_backbone(model: Ram) -> torch.nn.Module:
    vision = model.config.vision
    backbone = SwinTransformer(
        img_size=vision.image_size,
        patch_size=vision.patch_size,
        num_classes=0,
        embed_dim=vision.embed_dim,
        depths=vision.depths,
        num_heads=vision.heads,
        window_size=vision.window,
    )
    backbone.load_state_dict(model.visual_encoder.state_dict())
    return backbone.eval()


def read_photos(folder: Path, count: int, size: int) -> list[Image]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})[:count]
    if len(paths) < count:
        raise SystemExit(f"{folder} holds {len(paths)} photos, {count} are needed; name another with --photos")
    photos = (Image(np.array(Picture.open(path).convert("RGB")), path.name) for path in paths)
    return [Image(resize(photo, size), photo.name) for photo in photos]


def vocabulary(count: int) -> Vocabulary:
    return Vocabulary(tuple(f"tag {i}" for i in range(count)))


def take_turns(runs: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each run, by turns."""
    for run in runs.values() if warm else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def judge(name: str, value: float, *, most: float | None = None, least: float | None = None, form: str = ".3f") -> None:
    met = (most is None or value <= most) and (least is None or value >= least)
    limit = f"<= {most}" if most is not None else f">= {least}"
    print(f"    {name:44}{value:9{form}}  target {limit}: {'met' if met else 'MISSED'}", flush=True)
    if not met:
        missed.append(name)


def show(name: str, seconds: list[float], images: int) -> None:
    spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
    each = statistics.median(seconds) / images
    print(f"  {name:46}{statistics.median(seconds):9.3f} s ({spread}), {each:.3f} s an image", flush=True)


def measure_tagger(model: Ram, photos: list[Image], *, repeats: int, batches: Sequence[int]) -> None:
    backbone, count = build_backbone(model), model.config.num_tags
    whole = RamTagger(model, vocabulary(count), batch_size=max(batches))
    few = RamTagger(model, vocabulary(count), allow=[f"tag {i}" for i in range(FEW_TAGS)], batch_size=max(batches))

    def bare(images: Sequence[Image]) -> None:
        with torch.inference_mode():
            backbone(pixels[: len(images)])

    pixels = torch.from_numpy(preprocess(photos, model.config.vision.image_size))
    for batch in batches:
        print(f"\neager float32, batch {batch}")
        images = photos[:batch]
        runs = {"backbone": lambda images=images: bare(images)}
        runs |= {
            str(count): lambda images=images: whole.tag(images),
            str(FEW_TAGS): lambda images=images: few.tag(images),
        }
        seconds = take_turns(runs, max(2, repeats - batch // 2), warm=batch == batches[0])
        show("backbone alone (timm)", seconds["backbone"], batch)
        show(f"tagger, {count} tags", seconds[str(count)], batch)
        show(f"tagger, {FEW_TAGS} tags", seconds[str(FEW_TAGS)], batch)
        judge(f"{count} tags / backbone, batch {batch}", ratio(seconds[str(count)], seconds["backbone"]), most=1.28)
        judge(
            f"{FEW_TAGS} tags / backbone, batch {batch}", ratio(seconds[str(FEW_TAGS)], seconds["backbone"]), most=1.03
        )
    many = whole.with_tags([f"new {i}" for i in range(MANY_TAGS)], text_encoder=RandomTexts())
    print("\neager float32, batch 1")
    show(f"tagger, {MANY_TAGS} tags", take_turns({"": lambda: many.tag(photos[:1])}, 1, warm=False)[""], 1)


def to_runtimes(model: Ram, arguments: argparse.Namespace, calibration: list[Image], cache: Path) -> dict[str, Any]:
    models: dict[str, Any] = {"eager float32": model, "eager bfloat16": copy.deepcopy(model).to(torch.bfloat16)}
    if arguments.skip_openvino:
        return models
    from rasa_ram.runtime.openvino import to_openvino  # noqa: PLC0415  (an extra)

    for precision, images in (("float32", None), ("int8", calibration)):
        start = time.perf_counter()
        name = f"OpenVINO {precision}"
        models[name] = to_openvino(
            model, precision=precision, calibration=images, cache=cache, threads=arguments.threads
        )
        print(f"  made {name} in {time.perf_counter() - start:.0f} s (later from the cache)", flush=True)
    return models


def measure_runtimes(models: Mapping[str, Any], photos: list[Image]) -> None:
    """Every mode on every photo, by turns: seconds, and logits beside those of eager float32."""
    models = dict(models) | {PLAIN: models["eager float32"]}
    size = next(iter(models.values())).config.vision.image_size
    logits: dict[str, list[np.ndarray]] = {name: [] for name in models}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        queries = {name: model.queries() for name, model in models.items()}
        for turn, photo in enumerate([photos[0], *photos]):  # the first turn warms up
            pixels = torch.from_numpy(preprocess([photo], size))
            for name, model in models.items():
                given = pixels.to(next(model.parameters()).dtype)
                torch.backends.mkldnn.enabled = name != PLAIN
                start = time.perf_counter()
                scored = model.decode(model.encode_image(given), queries[name])
                torch.backends.mkldnn.enabled = True
                if turn:
                    seconds[name].append(time.perf_counter() - start)
                    logits[name].append(scored.float().numpy()[0])
    exact, eager = np.stack(logits["eager float32"]), seconds["eager float32"]
    threshold = np.log(THRESHOLD / (1 - THRESHOLD))
    above = np.mean(exact > threshold)
    print(f"\nevery mode, {exact.shape[1]} tags, batch 1, {len(photos)} photos by turns; logits of eager float32 have")
    print(f"standard deviation {exact.std():.2f}, and {above:.1%} of them are above the threshold {THRESHOLD}")
    for name in models:
        show(name, seconds[name], 1)
        if name != "eager float32":
            compare(name, np.stack(logits[name]), exact, threshold, faster=ratio(eager, seconds[name]))
        if name.startswith("OpenVINO"):
            faster = ratio(seconds[PLAIN], seconds[name])
            judge(f"times as fast as {PLAIN}", faster, least=1.25 if name.endswith("float32") else 2.5)


def compare(name: str, logits: np.ndarray, exact: np.ndarray, threshold: float, *, faster: float) -> None:
    error = np.abs(logits - exact)
    same = float(np.mean((logits > threshold) == (exact > threshold)))
    print(f"    logit error: mean {error.mean():.2e}, worst {error.max():.2e}")
    if name == "OpenVINO float32":
        judge("worst logit error", float(error.max()), most=1e-3, form=".1e")
    if name == "OpenVINO int8":
        judge("times as fast as eager float32", faster, least=2.5)
    else:
        print(f"    {'times as fast as eager float32':44}{faster:9.3f}")
    if name == "eager bfloat16":
        judge("decisions (photo, tag) that stay the same", same, least=0.99, form=".4f")
    else:
        print(f"    {'decisions (photo, tag) that stay the same':44}{same:9.4f}")


def resident(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, in GB; unlike getrusage not inherited from the parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


def run_memory(arguments: argparse.Namespace) -> None:
    """In a process of its own: load a model with any weights, tag once, print the peaks as JSON."""
    batch, tags = arguments.memory
    model = builders.build(CONFIGS[arguments.model])
    noise = np.random.default_rng(0)
    size = model.config.vision.image_size
    images = [Image(noise.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(batch)]
    tagger = RamTagger(model, vocabulary(model.config.num_tags), batch_size=batch)
    if tags != model.config.num_tags:
        tagger = tagger.with_tags([f"new {i}" for i in range(tags)], text_encoder=RandomTexts())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): forget the peak so far
    before = resident("VmRSS")
    start = time.perf_counter()
    tagger.tag(images)
    peak = {"above": resident("VmHWM") - before, "model": before, "seconds": time.perf_counter() - start}
    print(json.dumps(peak))


def measure_memory(arguments: argparse.Namespace, cases: Sequence[tuple[int, int]]) -> None:
    print("\npeak memory above the loaded model, eager float32 (weights as initialised)")
    for batch, tags in cases:
        command = [sys.executable, __file__, "--memory", str(batch), str(tags), "--model", arguments.model]
        command += ["--threads", str(arguments.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the memory run failed:\n{done.stderr[-2000:]}")
        peak = json.loads(done.stdout.splitlines()[-1])
        print(f"  batch {batch}, {tags} tags: loaded {peak['model']:.2f} GB, {peak['seconds']:.0f} s")
        judge(f"GB above, batch {batch}, {tags} tags", peak["above"], most=MEMORY_LIMIT_GB, form=".2f")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CONFIGS, default="swin-l")
    parser.add_argument("--quick", action="store_true", help="few repeats, photos and calibration images; no batch 4")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and OpenVINO")
    parser.add_argument("--skip-openvino", action="store_true")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos", metavar="FOLDER")
    parser.add_argument("--batches", type=int, nargs="+", metavar="N", help="default 1 4; with --quick 1")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("BATCH", "TAGS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        run_memory(arguments)
        return 0
    began, quick = time.perf_counter(), arguments.quick
    batches = arguments.batches or ([1] if quick else [1, 4])
    config = CONFIGS[arguments.model]
    tested, calibrating = (2, 2) if quick else (6, 4)
    photos = read_photos(arguments.photos, max(tested + calibrating, *batches), config.vision.image_size)
    print(
        f"{arguments.model}, {arguments.threads} threads, weights made by rule, not trained; torch {torch.__version__}"
    )
    model = build_by_rule(config)
    print(f"  built in {time.perf_counter() - began:.0f} s")
    measure_tagger(model, photos, repeats=2 if quick else 5, batches=batches)
    print(f"\nmaking the runtimes; int8 is calibrated on {calibrating} other photos")
    with tempfile.TemporaryDirectory() as cache:
        models = to_runtimes(model, arguments, photos[tested : tested + calibrating], Path(cache))
        measure_runtimes(models, photos[:tested])
        del models, model
    measure_memory(arguments, [(4 if quick else 32, config.num_tags), (1, MANY_TAGS)])
    print(f"\n{time.perf_counter() - began:.0f} s in all; missed: {', '.join(missed) or 'nothing'}")
    return int(bool(missed) and arguments.model == "swin-l" and not quick)


if __name__ == "__main__":
    # Vectors of made-up tags are no use to anybody else.
    with tempfile.TemporaryDirectory() as made_up:
        os.environ["RASA_CACHE"] = made_up
        sys.exit(main())
