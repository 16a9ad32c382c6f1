"""The locks of shards: one worker at a time."""

from types import SimpleNamespace

from rasa.labelling.locks import shard_lock

SHARD = SimpleNamespace(key="shard-000000")


def test_one_shard_is_held_by_one(tmp_path):
    with shard_lock(tmp_path, "run", SHARD) as held:
        assert held
        with shard_lock(tmp_path, "run", SHARD) as again:
            assert not again
        with shard_lock(tmp_path, "other", SHARD) as other:
            assert other
    with shard_lock(tmp_path, "run", SHARD) as held:
        assert held
    assert not list((tmp_path / "locks").rglob("*.lock"))
