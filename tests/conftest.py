"""What all tests share: one thread, the real weights where they are cached, and no way to the user's settings."""

import os
import signal
from pathlib import Path

import pytest

# Before torch or OpenCV is loaded: tiny models run many times slower when threads wait for busy cores.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# A shell starts its background jobs deaf to Ctrl-C; the commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def checkpoint_file():
    """A function: name of a checkpoint to its cached file; skips the test where it is not cached, and fails in CI."""
    from rasa.weights import find

    def get(name):
        path = find(name)
        if path is None and os.environ.get("RASA_REQUIRE_WEIGHTS") == "1":
            pytest.fail(f"RASA_REQUIRE_WEIGHTS=1, and {name} is not cached; run `rasa weights fetch {name}`")
        if path is None:
            pytest.skip(f"{name} is not cached; run `rasa weights fetch {name}`")
        return path

    return get
