"""A worker in a process of its own: ``python -m rasa.labelling.worker_process``, driven by :mod:`rasa.labelling.local`.

Pickled messages come in through stdin and go out through stdout. Not a ``multiprocessing`` process: that would
run the caller's script once more, and needs its ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import threading
import warnings
from queue import SimpleQueue
from types import FrameType
from typing import Any, BinaryIO

from rasa.errors import RasaError, RasaWarning, WorkerError
from rasa.labelling.messages import Failed, Moved, Ready, Warned
from rasa.labelling.recipe import Recipe
from rasa.labelling.worker import Labeller


def main() -> None:
    """Build a pipeline and label shards until nobody wants any more."""
    # Where there are no process groups, Ctrl-C reaches the workers too; the process that drives them ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    wire = _Wire()
    try:
        with warnings.catch_warnings():
            _forward_warnings(wire)
            _work(wire)
    except RasaError as error:
        wire.send(Failed(_portable(error)))
    except Exception as error:  # noqa: BLE001  (the process that drives this one reports it)
        wire.send(Failed(WorkerError(f"a worker failed: {type(error).__name__}: {error}")))
    finally:
        wire.flush()


def _work(wire: _Wire) -> None:
    recipe: Recipe = wire.receive()
    labeller = Labeller(recipe)
    wire.send(Ready(labeller.provenance))
    settings = wire.receive()
    while True:
        task = wire.receive()
        wire.send(labeller.label(task, settings, moved=lambda images: wire.send(Moved(images))))


class _Wire:
    """Messages in and out; nothing that a model prints gets in between."""

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        source = os.fdopen(os.dup(0), "rb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        threading.Thread(target=self._read, args=(source,), daemon=True, name="rasa-inbox").start()

    def _read(self, source: BinaryIO) -> None:
        try:
            while True:
                self._inbox.put(pickle.load(source))  # noqa: S301  (from the parent process, through a pipe)
        except (EOFError, OSError, pickle.UnpicklingError):
            # Nobody drives this process any more, also where it was killed: stop at once, in the middle of a shard.
            os._exit(0)
        except Exception as error:  # noqa: BLE001  (a factory whose module cannot be imported here)
            self._inbox.put(WorkerError(f"a worker cannot read its task: {type(error).__name__}: {error}"))

    def receive(self) -> Any:
        message = self._inbox.get()
        if isinstance(message, WorkerError):
            raise message
        return message

    def send(self, message: object) -> None:
        data = pickle.dumps(message)
        with self._lock:
            self._out.write(data)
            self._out.flush()

    def flush(self) -> None:
        with self._lock:
            self._out.close()


def _leave(number: int, frame: FrameType | None) -> None:
    # Unwinds the stack, so that a half-written file is removed.
    raise SystemExit(128 + number)


def _forward_warnings(wire: _Wire) -> None:
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, RasaWarning):
            wire.send(Warned(str(message)))
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show


def _portable(error: RasaError) -> RasaError:
    """``error`` as the other side can unpickle it; a class with arguments of its own may not survive the trip."""
    try:
        pickle.load(io.BytesIO(pickle.dumps(error)))  # noqa: S301  (our own bytes)
    except Exception:  # noqa: BLE001  (whatever its constructor makes of it)
        return WorkerError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
