"""RAM -> Grounding DINO -> SAM at full size: our pipeline beside a plain script that calls the same models.

    python benchmarks/pipeline.py [--images 8] [--boxes 20] [--tags 10] [--threads 2] [--device cpu] [--dtype float32]
                                  [--flame FILE.svg] [--weights FOLDER] [--skip-memory]

RAM Swin-L 384, Grounding DINO Swin-T and SAM ViT-B, with weights made by the rules of the reference folder: they are
not trained, so that tags and boxes mean nothing, but the work is that of real ones. The plain script does what the
demo of RAM and Grounded SAM does: one photo at a time, PyTorch's own dense layers, transformers' Grounding DINO,
`segment_anything`'s predictor, all boxes of a photo in one decoder call. Compared runs take turns. Boxes of both are
not compared: with weights that are not trained, first-stage scores nearly tie, and rounding swaps which places are
looked at (tests/adapters/test_golden_grounding_dino.py compares in float64).
Memory is the peak of a process of its own, all weights included (Linux). `--flame` draws where the time goes that no
network takes. Exits with 1 if the pipeline takes more than 1.03 times its models at batch 1, or is no faster than the
plain script at batch 8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from overhead import with_timers  # noqa: E402  (beside this script)
from profiling import Sampler, write_flame  # noqa: E402

import rasa  # noqa: E402  (the checkout comes first)
from rasa.adapters.grounding_dino.detector import GroundingDino  # noqa: E402
from rasa.adapters.grounding_dino.loading import load_network  # noqa: E402
from rasa.adapters.grounding_dino.text import BertTokenizer  # noqa: E402
from rasa.adapters.sam.loading import load_sam  # noqa: E402
from rasa.stages import Detect, Filter, Segment, Suppress, Tag  # noqa: E402
from rasa_ram.tagger import RamTagger, load_tagger  # noqa: E402
from rasa_ram.vocabulary import Vocabulary  # noqa: E402

REFERENCE = Path(os.environ.get("RASA_REFERENCE", ROOT.parent / "shared" / "reference"))
BOX_THRESHOLD, NMS = 0.25, 0.5  # of the demo
MOST_OVERHEAD = 1.03
SEEDS = {"dino": 11, "sam": 21}  # as in the reference folder
MODES = ("ram", "dino", "sam", "ours", "plain")


# Weights and vocabularies.


def make_weights(folder: Path) -> None:
    """Write the three checkpoints, in the form in which they are published (RAM: in ours), unless they are there."""
    from tests.adapters import reference  # noqa: PLC0415  (needs pytest; runs in other processes do without)

    rules = {"dino": reference.grounding_dino_weight, "sam": reference.sam_weight}
    manifests = {"dino": "grounding_dino/keys_swint_ogc.json", "sam": "sam/keys_sam_vit_b.json"}
    for name, manifest in manifests.items():
        if (folder / f"{name}.pth").exists():
            continue
        shapes = reference.read_shapes(REFERENCE / manifest)
        kinds = reference.read_dtypes(REFERENCE / manifest)
        floats = {key: shape for key, shape in shapes.items() if kinds[key].is_floating_point}
        torch.save({"model": reference.fill(floats, rules[name], SEEDS[name])}, folder / f"{name}.pth")
    if not (folder / "ram.safetensors").exists():
        import ram  # noqa: PLC0415  (the benchmark beside this one)
        from safetensors.torch import save_file  # noqa: PLC0415

        model = ram.build_by_rule(ram.CONFIGS["swin-l"])
        save_file({name: weight.contiguous() for name, weight in model.named_parameters()}, folder / "ram.safetensors")


def vocabulary() -> Vocabulary:
    return Vocabulary(tuple(word(i) for i in range(4585)))


def word(i: int) -> str:
    # One WordPiece each, at an id that is no special token.
    return f"w{i + 2000}"


def tokenizer() -> BertTokenizer:
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    return BertTokenizer(special | {word(i): i + 2000 for i in range(4585)})


# Our side.


def load_ram(folder: Path, arguments: argparse.Namespace) -> RamTagger:
    return load_tagger(
        folder / "ram.safetensors", vocabulary(), top_k=arguments.tags, device=arguments.device, dtype=arguments.dtype
    )


def load_dino(folder: Path, arguments: argparse.Namespace) -> GroundingDino:
    network = load_network(folder / "dino.pth", device=arguments.device, dtype=arguments.dtype)
    # The demo scores a box by its best token, whatever tag it belongs to.
    return GroundingDino(network, tokenizer(), box_threshold=BOX_THRESHOLD, score="caption", batch_size=arguments.batch)


def our_pipeline(ram: Any, dino: Any, sam: Any, boxes: int) -> rasa.Pipeline:
    suppress = Suppress(nms_threshold=NMS, merge_threshold=NMS)
    return rasa.Pipeline(Tag(ram), Detect(dino), suppress, Filter(max_instances=boxes), Segment(sam))


# The plain script.


def plain_script(folder: Path, arguments: argparse.Namespace) -> Callable[[Path], tuple[Any, Any]]:
    """The demo's loop body over the same weights: photo in, boxes and masks out."""
    from segment_anything import SamPredictor, sam_model_registry  # noqa: PLC0415  (for the comparison alone)
    from torchvision.ops import nms  # noqa: PLC0415
    from transformers import GroundingDinoImageProcessor  # noqa: PLC0415

    device, kind = arguments.device, getattr(torch, arguments.dtype)
    tagger, detector = load_ram(folder, arguments), plain_detector(folder).to(device)
    sam = sam_model_registry["vit_b"]()
    sam.load_state_dict(torch.load(folder / "sam.pth", weights_only=True)["model"])
    predictor, processor, tokens = SamPredictor(sam.eval().to(device)), GroundingDinoImageProcessor(), tokenizer()

    @torch.inference_mode()
    def run(path: Path) -> tuple[Any, Any]:
        photo = Picture.open(path).convert("RGB")
        pixels, size = np.array(photo), torch.tensor([*photo.size, *photo.size])
        torch.backends.mkldnn.enabled = False  # RAM with PyTorch's own dense layers
        tags = tagger.tag([rasa.Image(pixels)])[0].names
        torch.backends.mkldnn.enabled = True
        (caption,) = tokens.captions(tags)
        given = processor(images=photo, return_tensors="pt").to(device)
        ids = torch.tensor([caption.token_ids], device=device)
        with torch.autocast(device, dtype=kind, enabled=kind != torch.float32):
            found = detector(pixel_values=given["pixel_values"], pixel_mask=given["pixel_mask"], input_ids=ids)
        scores = found.logits[0].float().sigmoid().amax(-1)
        centre, extent = found.pred_boxes[0].float().split(2, -1)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], -1) * size.to(device)
        boxes, scores = boxes[scores > BOX_THRESHOLD], scores[scores > BOX_THRESHOLD]
        boxes = boxes[nms(boxes, scores, NMS)][: arguments.boxes]
        boxes = boxes.clamp(min=0).minimum(size.to(device))  # the demo does not, but masks are compared below
        with torch.autocast(device, dtype=kind, enabled=kind != torch.float32):
            predictor.set_image(pixels)
            asked = predictor.transform.apply_boxes_torch(boxes, pixels.shape[:2])
            masks, _, _ = predictor.predict_torch(None, None, boxes=asked, multimask_output=False)
        return boxes.cpu().numpy(), masks.cpu().numpy()

    return run


def plain_detector(folder: Path) -> torch.nn.Module:
    from transformers import GroundingDinoForObjectDetection  # noqa: PLC0415

    from rasa._torch.files import open_tensors  # noqa: PLC0415
    from rasa.adapters.grounding_dino.keys import read_names  # noqa: PLC0415
    from rasa.adapters.grounding_dino.loading import match_weights  # noqa: PLC0415
    from rasa.adapters.grounding_dino.sizes import infer_config  # noqa: PLC0415

    weights = read_names(open_tensors(folder / "dino.pth").tensors, name="dino")
    model = GroundingDinoForObjectDetection(infer_config(weights, name="dino"))
    with torch.no_grad():
        for parameter, weight in match_weights(weights, model, name="dino"):
            parameter.copy_(weight.tensor)
    return model.eval()


# Measuring.


def clock(run: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(folder: Path, photos: Sequence[Path], arguments: argparse.Namespace) -> bool:
    ram, dino = load_ram(folder, arguments), load_dino(folder, arguments)
    sam = our_sam(folder, arguments)
    pipeline, plain = our_pipeline(ram, dino, sam, arguments.boxes), plain_script(folder, arguments)
    timed, timers = with_timers(pipeline)
    for warm in (timed, plain):
        warm(photos[0])
    whole, models, demo, found, answers, sampler = [], [], [], [], [], Sampler()
    for photo in photos:
        for timer in timers:
            timer.seconds = 0.0
        with sampler:
            whole.append(clock(lambda photo=photo: found.append(timed(photo)), arguments.device))
        models.append([timer.seconds for timer in timers])
        demo.append(clock(lambda photo=photo: answers.append(plain(photo)), arguments.device))
    if arguments.flame:
        write_flame(arguments.flame, sampler, "what no network takes, batch 1")
    batch = clock(lambda: pipeline(list(photos), batch_size=arguments.batch), arguments.device)
    agreed = mask_agreement(sam, photos[0], answers[0])
    return report(np.array(whole), np.array(models), np.array(demo), batch, agreed=agreed, sampler=sampler, found=found)


def mask_agreement(sam: Any, photo: Path, answer: tuple[Any, Any]) -> float:
    """Share of pixels on which our masks for the plain script's boxes equal its own."""
    boxes, masks = answer
    (ours,) = sam.segment([rasa.to_image(photo)], [boxes.astype(np.float32)])
    return float(np.mean(ours.masks == masks[:, 0]))


def report(  # noqa: PLR0913  (what was measured)
    whole: Any, models: Any, demo: Any, batch: float, *, agreed: float, sampler: Sampler, found: list[Any]
) -> bool:
    count = len(whole)
    overhead = statistics.median(whole / models.sum(1))
    gain = demo.sum() / batch
    tags, boxes = [len(result.tags) for result in found], [len(result.instances) for result in found]
    print(f"\n{count} photos, {min(tags)} to {max(tags)} tags and {min(boxes)} to {max(boxes)} boxes; seconds each")
    for name, column in zip(("RAM Swin-L", "Grounding DINO Swin-T", "SAM ViT-B"), models.T, strict=True):
        print(f"  {name:34}{statistics.median(column):8.2f} ({column.min():.2f} to {column.max():.2f})")
    print(f"  {'our pipeline, batch 1':34}{statistics.median(whole):8.2f} ({whole.min():.2f} to {whole.max():.2f})")
    print(f"  {'the plain script':34}{statistics.median(demo):8.2f} ({demo.min():.2f} to {demo.max():.2f})")
    print(f"  {f'our pipeline, all {count} in one call':34}{batch / count:8.2f}")
    print(f"  pipeline / sum of its models, batch 1: {overhead:.4f} (target <= {MOST_OVERHEAD})")
    print(f"  times as fast as the plain script: {demo.sum() / whole.sum():.2f} at batch 1, {gain:.2f} in one call")
    print(f"  pixels equal in our and its masks of the same boxes, first photo: {agreed:.4%}")
    print(f"  samples outside of networks: {sampler.outside_share:.2%} of the time of the pipeline at batch 1")
    return bool(overhead <= MOST_OVERHEAD and gain > 1)


def run_memory(folder: Path, photo: Path, arguments: argparse.Namespace) -> None:
    """In a process of its own: load what one mode needs, run it once, print the peak as JSON."""
    tags = tuple(word(i) for i in range(arguments.tags))
    image = rasa.to_image(photo)
    height, width = image.size
    boxes = np.tile(np.array([[0, 0, width / 2, height / 2]], np.float32), (arguments.boxes, 1))
    run: Callable[[], Any]
    if arguments.memory == "ram":
        run = partial(load_ram(folder, arguments).tag, [image])
    elif arguments.memory == "dino":
        run = partial(load_dino(folder, arguments).detect, [image], [tags])
    elif arguments.memory == "sam":
        run = partial(our_sam(folder, arguments).segment, [image], [boxes])
    elif arguments.memory == "ours":
        models = [load(folder, arguments) for load in (load_ram, load_dino, our_sam)]
        run = partial(our_pipeline(*models, arguments.boxes), photo)
    else:
        run = partial(plain_script(folder, arguments), photo)
    loaded = resident("VmRSS")
    run()
    peak = resident("VmHWM")
    if arguments.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps({"loaded": loaded, "peak": peak}))


def our_sam(folder: Path, arguments: argparse.Namespace) -> Any:
    return load_sam(folder / "sam.pth", device=arguments.device, dtype=arguments.dtype)


def resident(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, in GB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


def measure_memory(folder: Path, arguments: argparse.Namespace) -> None:
    print("\npeak memory with one photo, weights included, each in a process of its own (CUDA: of the GPU)")
    for mode in MODES:
        command = [sys.executable, __file__, "--memory", mode, "--weights", str(folder)]
        for name in ("boxes", "tags", "threads", "device", "dtype", "photos"):
            command += [f"--{name}", str(getattr(arguments, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the memory run {mode} failed:\n{done.stderr[-2000:]}")
        peak = json.loads(done.stdout.splitlines()[-1])
        print(f"  {mode:10}{peak['peak']:6.2f} GB, {peak['loaded']:.2f} GB after loading", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="photos that go through the stages together")
    parser.add_argument("--boxes", type=int, default=20, help="most boxes a photo")
    parser.add_argument("--tags", type=int, default=10, help="most tags a photo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--photos", type=Path, default=REFERENCE.parent / "photos", metavar="FOLDER")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="keep the weights that are made here")
    parser.add_argument("--flame", type=Path, metavar="FILE", help="draw a flame graph of what is not model time")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--memory", choices=MODES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    photos = photos[:: max(1, len(photos) // arguments.images)][: arguments.images]
    if not REFERENCE.is_dir() or not photos:
        print(f"skipped: needs the reference folder {REFERENCE} and photos in {arguments.photos}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.weights or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.memory:
            run_memory(folder, photos[0], arguments)
            return 0
        make_weights(folder)
        began = time.perf_counter()
        print(f"{arguments.device}, {arguments.dtype}, {arguments.threads} threads, torch {torch.__version__}")
        good = measure(folder, photos, arguments)
        if not arguments.skip_memory:
            measure_memory(folder, arguments)
        print(f"\n{time.perf_counter() - began:.0f} s in all; targets {'met' if good else 'MISSED'}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
