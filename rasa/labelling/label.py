"""The two functions of a labelled dataset that ``import rasa`` shows; PyArrow is imported when one is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rasa.io.find import StrPath
from rasa.labelling.progress import Watch
from rasa.labelling.recipe import Factory, recipe_for

if TYPE_CHECKING:
    from rasa.labelling.dataset import Dataset
    from rasa.labelling.job import EngineName


def label(  # noqa: PLR0913  (one argument per choice of `rasa label`, all but two by name)
    sources: Iterable[StrPath] | StrPath,
    out: StrPath,
    *,
    preset: str = "lite",
    pipeline: Factory | None = None,
    workers: int = 1,
    threads: int = 1,
    batch_size: int = 8,
    shard_size: int = 512,
    strict: bool = False,
    engine: EngineName = "local",
    address: str | None = None,
    every: int | None = None,
    seconds: float | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
    **overrides: Any,
) -> Dataset:
    """Label folders, patterns, manifests, archives and videos into a dataset on disk.

    The images are hashed and put into shards; every shard is labelled as a whole and appears under its name when it
    is complete. Called again with the same arguments, it labels what is missing; with another threshold, model or
    vocabulary it labels anew beside the old labels. What cannot be read or labelled has a row that says why.

    Models run in processes of their own: one that dies is replaced, and an image that no worker survives costs one
    row. Results do not depend on the number of workers.

    Args:
        sources: Files, folders (with all below), patterns, manifests (CSV, JSON Lines, Parquet), tar and zip
            archives, videos, addresses (``https://``, ``s3://``, ``gs://`` and others of fsspec).
        out: Folder of the dataset; made, or continued.
        preset: A preset of :func:`rasa.load`, or the path of a TOML file.
        pipeline: In place of a preset: ``"package.module:function"``, or a callable that can be pickled, which
            gives a :class:`rasa.Pipeline`. Every worker calls it once.
        workers: Number of processes (local), or of actors (ray).
        threads: Threads of the models in each of them. Another number can change the last digits of a score.
        batch_size: Images that go through the models together; halved by itself where memory is short.
        shard_size: Images a shard; the most that has to be done again after a crash.
        strict: Raise at the end if any image has no labels.
        engine: ``"local"``, or ``"ray"`` for a cluster.
        address: Of the Ray cluster; None starts one on this machine.
        every: Take every n-th frame of a video.
        seconds: Take a frame of a video every so many seconds.
        retry_failed: Label also those images of finished shards again that failed, all but those that could not be
            read when they were listed: these are looked at again at every call.
        watch: Called with a :class:`rasa.labelling.progress.Progress` as the work goes on.
        overrides: Other values for fields of the preset's :class:`rasa.config.PipelineConfig`.

    Raises:
        InputError: If an argument does not fit, or there is nothing to label.
        RasaError: If the pipeline cannot be built.
        OutputError: If the dataset cannot be written; calling again continues.
        WorkerError: If workers die whatever they do.
        FailedImagesError: With ``strict``, when all is done and some image has no labels.
    """
    from rasa.labelling.job import Job  # noqa: PLC0415  (needs the extra "label")

    job = Job(
        recipe=recipe_for(preset, pipeline, overrides),
        workers=workers,
        threads=threads,
        batch_size=batch_size,
        shard_size=shard_size,
        engine=engine,
        address=address,
        every=every,
        seconds=seconds,
        retry_failed=retry_failed,
    )
    return job.run(sources, out, strict=strict, watch=watch)


def open_dataset(folder: StrPath, *, run: str | None = None) -> Dataset:
    """Open a labelled dataset for reading, also while it is being labelled.

    Args:
        folder: What :func:`label` wrote.
        run: Fingerprint of a run, or its first digits; the one started last unless given.

    Raises:
        InputError: If the folder is no dataset, or has no such run.
        FormatError: If a file is damaged.
    """
    from rasa.labelling import dataset  # noqa: PLC0415  (needs the extra "label")

    return dataset.open_dataset(folder, run=run)
