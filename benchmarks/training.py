"""What a training step costs beside a forward pass, and on a GPU what pre-training at the paper's size would take.

    OMP_NUM_THREADS=1 python benchmarks/training.py                       # RAM Swin-B 224, batch 8, tags alone
    python benchmarks/training.py --size l --batch 52 --precision bfloat16 --device cuda --parts all --checkpoint

The step is the trainer's own: forward pass in training mode, losses, backward pass, AdamW. It is compared with two
forward passes of the same batch in the same mode: with gradients (what the step itself begins with) and without.
On a CPU the default is one core; the goal is at most 3.3 times the first. With --parts all, the step alone has the
teacher in it too: CLIP ViT-B/16, both towers, with random weights, which take the time and the memory of trained ones.
--quick makes the student tiny, to see that the script works: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import open_clip
import torch

from rasa_ram.builders import build, swin_b, swin_l
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.data.samples import CaptionBatch, Samples
from rasa_ram.text_encoder import ARCHITECTURE
from rasa_ram.training.config import TEACHER_SIZE
from rasa_ram.training.distributed import Processes
from rasa_ram.training.objective import Batch, compute_losses
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.step import recomputing
from rasa_ram.training.teacher import OpenClipTeacher
from rasa_ram.training.update import Updater

# Published (arXiv:2306.03514, section 4): 14 M images, 5 epochs, 8 GPUs, batch 52 each, 3 days.
PAPER_IMAGES, PAPER_EPOCHS, PAPER_GPUS, PAPER_DAYS = 14e6, 5, 8, 3
GOAL = 3.3


def random_samples(config: RamConfig, batch: int) -> Samples:
    """A batch of noise with 40 caption tokens and 10 tags an image."""
    side = config.vision.image_size
    captions = None
    if config.text is not None:
        ids, mask = torch.randint(1000, 30000, (batch, 40)), torch.ones(batch, 40, dtype=torch.int64)
        captions = CaptionBatch(tag_ids=ids[:, :20], tag_mask=mask[:, :20], caption_ids=ids, caption_mask=mask)
    return Samples(
        image_paths=tuple(f"{i}.jpg" for i in range(batch)),
        pixels=torch.randn(batch, 3, side, side),
        targets=(torch.rand(batch, config.num_tags) < 10 / config.num_tags).float(),
        teacher_pixels=torch.randn(batch, 3, TEACHER_SIZE, TEACHER_SIZE),
        captions=captions,
    )


def timed(function: Callable[[], object], *, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each call, after one that does not count: on a CPU of processor time, which others do not stretch."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for number in range(repeats + 1):
        began = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            seconds.append(clock() - began)
    return seconds


def memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["b", "l"], default="b")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tags", type=int, default=4585)
    parser.add_argument("--parts", choices=["tags", "all"], default="tags", help="all: captions and distillation too")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--checkpoint", action="store_true", help="gradient checkpointing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(arguments)


def full_config(arguments: argparse.Namespace) -> RamConfig:
    vision = (swin_b if arguments.size == "b" else swin_l)(224)
    text = TextConfig() if arguments.parts == "all" else None
    return RamConfig(family="ram", vision=vision, num_tags=arguments.tags, text=text)


def tiny_config(arguments: argparse.Namespace) -> RamConfig:
    vision = SwinConfig(image_size=64, embed_dim=8, depths=(1, 2, 1, 1), heads=(1, 1, 2, 2), window=2)
    text = TextConfig(width=24, layers=2, heads=2, intermediate=48) if arguments.parts == "all" else None
    sizes = {"width": 24, "heads": 2, "intermediate": 48}
    return RamConfig(family="ram", vision=vision, num_tags=arguments.tags, text=text, **sizes)


def report(arguments: argparse.Namespace) -> None:
    everything = arguments.parts == "all"
    config = tiny_config(arguments) if arguments.quick else full_config(arguments)
    model = build(config).train()
    settings = RunSettings(
        device=arguments.device,
        precision=arguments.precision,
        parts=None if everything else (),
        gradient_checkpointing=arguments.checkpoint,
    )
    processes = Processes.join(arguments.device)
    teacher = OpenClipTeacher(open_clip.create_model(ARCHITECTURE)) if everything else None
    updater = Updater(model, settings=settings, processes=processes, teacher=teacher)
    samples = random_samples(config, arguments.batch)
    device = processes.device
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    name = "tiny" if arguments.quick else f"Swin-{arguments.size.upper()}"
    side = config.vision.image_size
    print(f"RAM {name} {side}, {size:.0f} M parameters, {config.num_tags} tags, {arguments.parts}")
    print(
        f"batch {arguments.batch}, {arguments.precision}, {device}, {torch.get_num_threads()} thread(s), training mode"
    )
    with recomputing(model, enabled=arguments.checkpoint):
        times = measure(model, updater, samples, settings, device=device, repeats=arguments.repeats)
    for name, seconds in times.items():
        print(f"{name:34} {statistics.median(seconds):8.3f} s  (from {min(seconds):.3f} to {max(seconds):.3f})")
    step = statistics.median(times["step"])
    for name in list(times)[:2]:
        print(f"step / {name:27} {step / statistics.median(times[name]):8.2f}")
    print(f"goal: at most {GOAL} times the forward pass with gradients")
    print(f"{arguments.batch / step:.2f} images/s, {memory_gib(device):.1f} GiB at most")
    if device.type == "cuda":
        hours = PAPER_IMAGES * PAPER_EPOCHS / (PAPER_GPUS * arguments.batch / step) / 3600
        print(f"14 M images x 5 epochs on 8 such GPUs: {hours:.0f} h of steps; the paper took {PAPER_DAYS * 24} h")


def measure(
    model: torch.nn.Module,
    updater: Updater,
    samples: Samples,
    settings: RunSettings,
    *,
    device: torch.device,
    repeats: int,
) -> dict[str, list[float]]:
    """Seconds of the two forward passes, one after the other, and of whole steps."""
    batch = Batch(pixels=samples.pixels.to(device), targets=samples.targets.to(device))
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")
    if settings.parts is None:
        names = ("tag_ids", "tag_mask", "caption_ids", "caption_mask")
        captions = CaptionBatch(**{name: getattr(samples.captions, name).to(device) for name in names})
        features = torch.ones(len(samples.pixels), model.config.label_width, device=device)
        batch = Batch(pixels=batch.pixels, targets=batch.targets, captions=captions, image_features=features)

    def forward() -> None:
        with autocast:
            compute_losses(model, batch, parts=settings.parts)

    def forward_without_gradients() -> None:
        with torch.no_grad():
            forward()

    return {
        "forward with gradients": timed(forward, repeats=repeats, device=device),
        "forward without gradients": timed(forward_without_gradients, repeats=repeats, device=device),
        "step": timed(lambda: updater.update([samples], rate=1e-6), repeats=repeats, device=device),
    }


if __name__ == "__main__":
    main()
