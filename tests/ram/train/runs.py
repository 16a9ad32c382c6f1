"""Tiny models, sources and a teacher for runs, and what other processes do with them."""

import json
import multiprocessing
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from rasa_ram.builders import build
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.data.samples import CaptionBatch, Samples
from rasa_ram.training.distributed import whole
from rasa_ram.training.loop import RunSettings, Trainer
from rasa_ram.training.schedule import CosineDecay, LinearWarmup, Schedule
from rasa_ram.training.update import Updater, join

TAGS, WIDTH = 6, 16
SCHEDULE = Schedule(decay=CosineDecay(peak=1e-3, floor=0.0, epochs=2), warmup=LinearWarmup(start=1e-5, steps=3))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.ram.train.runs"])  # torch and transformers are imported once for all processes


def tiny(family="ram", *, dropout=0.1, captioner=True, descriptions=3):
    """A model of all parts whose random weights are always the same."""
    text = TextConfig(vocab_size=30, width=WIDTH, layers=3, heads=2, intermediate=24, max_positions=16, dropout=dropout)
    config = RamConfig(
        family=family,
        vision=SwinConfig(
            image_size=16, embed_dim=8, depths=(1, 1), heads=(1, 2), window=2, drop_path=min(0.3, 3 * dropout)
        ),
        num_tags=TAGS,
        descriptions=descriptions if family == "ram-plus" else 1,
        label_width=8,
        width=WIDTH,
        heads=2,
        intermediate=24,
        dropout=dropout,
        text=text if captioner and family != "ram-plus" else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build(config)
        if family != "tag2text":
            vectors = model.label_embedding.vectors
            vectors.data = torch.nn.functional.normalize(torch.randn_like(vectors), dim=-1)
    return model


class Teaching:
    """A teacher whose features are fixed functions of pixels and texts."""

    def image_features(self, pixels):
        return pixels.flatten(1)[:, :8] * 2

    def text_features(self, texts):
        rows = torch.stack([torch.sin(torch.arange(8.0) * (1 + sum(map(ord, text)) % 17)) for text in texts])
        return torch.nn.functional.normalize(rows + 0.01, dim=-1)


def samples(seed, images, *, captions=True):
    """Random samples, each with a caption of another length."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 30, (images, 10), generator=random)
    lengths = torch.randint(5, 11, (images, 1), generator=random)
    mask = (torch.arange(10) < lengths).long()
    written = CaptionBatch(tag_ids=ids[:, :6], tag_mask=mask[:, :6], caption_ids=ids * mask, caption_mask=mask)
    return Samples(
        image_paths=tuple(f"{seed}-{i}.jpg" for i in range(images)),
        pixels=torch.randn(images, 3, 16, 16, generator=random),
        targets=(torch.rand(images, TAGS, generator=random) > 0.6).float(),
        teacher_pixels=torch.randn(images, 3, 4, 4, generator=random),
        captions=written if captions else None,
        texts=tuple(f"caption {seed} {i}" for i in range(images)),
    )


def cut(batch, rows):
    """Some rows of samples."""
    captions = CaptionBatch(
        **{name: getattr(batch.captions, name)[rows] for name in ("tag_ids", "tag_mask", "caption_ids", "caption_mask")}
    )
    parts = {
        name: getattr(batch, name)[rows] for name in ("image_paths", "pixels", "targets", "teacher_pixels", "texts")
    }
    return replace(batch, captions=captions, **parts)


class Source:
    """Batches that follow from the epoch and their number alone; ``broken`` is one with a pixel that is no number."""

    def __init__(self, batches=5, *, images=2, broken=None, short=False):
        self.count, self.images, self.broken, self.short = batches, images, broken, short
        self.read = []

    def __len__(self):
        return self.count

    def batches(self, epoch, *, first=0):
        torch.rand(3)  # as a DataLoader draws its seed; dropout must not feel it
        for number in range(first, self.count - self.short):
            self.read.append((epoch, number))
            batch = samples(1000 * epoch + number, self.images)
            if (epoch, number) == self.broken:
                batch.pixels[0, 0, 0, 0] = torch.nan
            yield batch


def trainer(out, family="ram", *, source=None, **options):
    """A trainer of a tiny model; settings go to ``RunSettings``, the rest to ``Trainer``."""
    own = {
        name: options.pop(name) for name in ("resume", "progress", "data", "vocabulary", "schedule") if name in options
    }
    settings = RunSettings(**{"epochs": 2, "save_every": 2, "log_every": 1, "device": "cpu"} | options)
    teacher = None if family == "tag2text" else Teaching()
    source = Source() if source is None else source
    own = {"schedule": SCHEDULE, **own}
    return Trainer(tiny(family), source, settings=settings, out=Path(out), teacher=teacher, **own)


def run_until(out, family, kill_at, resume, options):
    """Train, and let the process be killed at a step, if it gets there."""
    torch.set_num_threads(1)

    def kill(report):
        if report.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer(out, family, resume=resume, progress=kill, **options).run()


def killed_and_resumed(out, family, steps, options):
    """Train in one process after the other, killed at each of ``steps``; returns their exit codes."""
    codes = []
    for number, step in enumerate([*steps, None]):
        process = CONTEXT.Process(target=run_until, args=(str(out), family, step, number > 0, options))
        process.start()
        process.join(120)
        codes.append(process.exitcode)
    return codes


def gradients(folder, rank, count, port, cases):
    """One of ``count`` processes: what each case's losses and gradients are; the first one writes them."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    for name, (family, options) in cases.items():
        model, settings = tiny(family, dropout=0.0).train(), RunSettings(device="cpu", **options)
        processes = join(model, settings)
        teacher = None if family == "tag2text" else Teaching()
        updater = Updater(model, settings=settings, processes=processes, teacher=teacher)
        each = 4 // count
        own = [cut(samples(seed, 4), slice(rank * each, (rank + 1) * each)) for seed in range(settings.accumulate)]
        updated = updater.update(own, rate=1e-3)
        after = {n: whole(p).clone() for n, p in model.named_parameters()}
        grads = {n: whole(p.grad).clone() for n, p in model.named_parameters() if p.grad is not None}
        if processes.main:
            save_file(grads, f"{folder}/{name}-{count}.safetensors")
            save_file(after, f"{folder}/{name}-{count}-weights.safetensors")
            facts = updated.losses | {"grad_norm": updated.grad_norm}
            Path(f"{folder}/{name}-{count}.json").write_text(json.dumps(facts), encoding="utf-8")
    if count > 1:
        torch.distributed.destroy_process_group()


def together(target, count, *args):
    """Run ``target(folder, rank, count, port, ...)`` in ``count`` processes at once; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, *rest = args
    started = [CONTEXT.Process(target=target, args=(folder, rank, count, port, *rest)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(150)
    return [process.exitcode for process in started]


def sharded_run(folder, rank, count, port, resume):
    """One process of a whole run with FSDP, checkpoints and a moving average."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    options = {"ema": 0.9, "precision": "bfloat16", "gradient_checkpointing": True, "accumulate": 2}
    steps = {} if resume else {"max_steps": 3}
    trainer(Path(folder), source=Source(10), resume=resume, sharding="fsdp", **options, **steps).run()
    torch.distributed.destroy_process_group()
