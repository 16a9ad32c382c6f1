"""S3 through s3fs, against the server of moto on this machine; both are installed by hand."""

import hashlib

import fsspec
import pytest

import rasa
from rasa.labelling.plan import plan_images

pytest.importorskip("s3fs", reason="s3fs is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # what boto warns of is not ours


@pytest.fixture(scope="module")  # s3fs keeps the address of the first server
def s3():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        yield system
    server.stop()


def test_a_bucket_becomes_a_dataset(s3, photos, tmp_path):
    folder = photos(3)
    for i, key in enumerate(("p/img10.png", "p/img2.png", "p/A/x.png")):
        s3.pipe_file(f"bucket/{key}", (folder / f"{i:04d}.png").read_bytes())
    s3.pipe_file("bucket/p/A/", b"")
    s3.pipe_file("bucket/p/z.png", b"")
    dataset = rasa.label("s3://bucket/p", tmp_path / "out", pipeline="fakes:fast", shard_size=2)
    images = {image.path: image for image in dataset.rows()}
    assert list(images) == [f"s3://bucket/p/{name}" for name in ("A/x.png", "img2.png", "img10.png", "z.png")]
    assert (dataset.counts.ok, dataset.counts.failed) == (3, 1)
    image = images["s3://bucket/p/img10.png"]
    assert hashlib.sha256(image.read_bytes()).hexdigest() == image.id


def test_a_changed_and_a_deleted_object_are_noticed(s3, tmp_path):
    (tmp_path / "list.csv").write_text("url\ns3://bucket/a.png\ns3://bucket/b.png\n")
    s3.pipe_file("bucket/a.png", b"first")
    s3.pipe_file("bucket/b.png", b"other")
    plan_images(tmp_path / "out", tmp_path / "list.csv")
    s3.pipe_file("bucket/a.png", b"later")
    s3.rm("bucket/b.png")
    images = {image.path: image for image in plan_images(tmp_path / "out", tmp_path / "list.csv").images()}
    assert images["s3://bucket/a.png"].read() == b"later"
    assert "is not there" in images["s3://bucket/b.png"].error.message
