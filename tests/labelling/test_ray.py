"""The Ray engine: same bytes as the local one, also when an image kills actors and when a node dies."""

import threading

import PIL.Image
import pytest

import rasa
from rasa.errors import RasaError
from rasa.testing import sample_image

ray = pytest.importorskip("ray", reason="ray is not installed; install the extra ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Ray leaves sockets and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning",
                               "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes on this machine, with a way to each; this process is connected to none of them yet."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = here.add_node(num_cpus=2)
    here.wait_for_nodes()
    yield here, second
    ray.shutdown()
    here.shutdown()


def test_a_cluster_survives_the_death_of_a_node(photos, tmp_path, content, logged, cluster):
    folder, (here, second) = photos(60), cluster
    options = {"pipeline": "fakes:slower", "shard_size": 2, "batch_size": 2}
    rasa.label(folder, tmp_path / "local", **options, workers=4)
    removed = threading.Event()

    def remove_once(progress):
        workers = {line["worker"] for line in logged(tmp_path / "ray", "shard")} if progress.done else set()
        if second.node_id[:12] in workers and not removed.is_set():
            removed.set()
            here.remove_node(second, allow_graceful=False)

    dataset = rasa.label(
        folder, tmp_path / "ray", engine="ray", address=here.address, workers=4, watch=remove_once, **options
    )
    assert removed.is_set(), "the second node did nothing"
    assert (dataset.counts.ok, dataset.counts.failed) == (60, 0)
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    assert logged(tmp_path / "ray", "worker lost"), "no worker was on the node that died"
    assert not ray.is_initialized()


def test_poisonous_and_broken_images_cost_a_row_each(photos, tmp_path, content):
    folder = photos(6)
    PIL.Image.fromarray(sample_image(height=8, width=13).pixels).save(folder / "0002a.png")
    PIL.Image.fromarray(sample_image(height=8, width=17).pixels).save(folder / "0003a.png")
    (folder / "0004a.png").write_bytes(b"no picture")
    dataset = rasa.label(folder, tmp_path / "out", pipeline="fakes:poison", shard_size=5, engine="ray", workers=2)
    failed = {image.path[-9:]: image.row.error_kind for image in dataset.rows() if not image.ok}
    assert failed == {"0002a.png": "WorkerDied", "0003a.png": "RuntimeError", "0004a.png": "ImageError"}


def test_a_pipeline_that_cannot_be_built_says_why(photos, tmp_path):
    with pytest.raises(RasaError, match="a worker failed: RuntimeError: no such luck"):
        rasa.label(photos(1), tmp_path / "out", pipeline="fakes:broken", engine="ray")
