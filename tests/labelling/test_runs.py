"""run.json and the fingerprints in it."""

import json

import pytest

from rasa.errors import FormatError, InputError, RasaWarning
from rasa.labelling.fingerprint import fingerprint_of
from rasa.labelling.runs import find_run, read_runs, start_run

PROVENANCE = {
    "versions": {"rasa": "1", "torch": "2.10"},
    "preset": "lite",
    "config": {"tagger": "t", "device": "cuda:0", "summary": "", "tag_threshold": 0.5, "low_memory": False},
    "stages": [{"stage": "tag", "model": "t", "checkpoints": {"w": "ab" * 32}}],
}


def changed(**config):
    return {**PROVENANCE, "config": {**PROVENANCE["config"], **config}}


def test_a_fingerprint_has_all_that_decides_and_nothing_else():
    own = fingerprint_of(PROVENANCE)
    assert len(own) == 16
    assert own == fingerprint_of(json.loads(json.dumps(dict(reversed(PROVENANCE.items())))))
    same = [changed(device="cuda:1"), changed(summary="x"), changed(low_memory=True)]
    same += [{**PROVENANCE, "preset": "my.toml"}, {**PROVENANCE, "versions": {"rasa": "1", "torch": "2.11"}}]
    assert {fingerprint_of(provenance) for provenance in same} == {own}
    other = [changed(device="cpu"), changed(tag_threshold=0.51), {**PROVENANCE, "versions": {"rasa": "2"}},
             {**PROVENANCE, "stages": [{"stage": "tag", "model": "t", "checkpoints": {"w": "cd" * 32}}]}]  # fmt: skip
    found = {fingerprint_of(provenance) for provenance in other} | {fingerprint_of(PROVENANCE, extra={"tags": ["a"]})}
    assert len(found - {own}) == 5
    with pytest.raises(InputError, match="plain JSON"):
        fingerprint_of({"stages": [{"threshold": float("nan")}]})


def test_run_json_keeps_every_run_and_the_current_one(tmp_path):
    first = start_run(tmp_path, PROVENANCE)
    second = start_run(tmp_path, changed(tag_threshold=0.9), extra={"tags": ["ä"]})
    derived = start_run(tmp_path, PROVENANCE, extra={"min_score": 0.5}, parent=first)
    known = read_runs(tmp_path)
    assert list(known.runs) == [first, second, derived]
    assert known.current == derived
    assert known.runs[derived].parent == first
    assert find_run(tmp_path, second[:6]).extra == {"tags": ["ä"]}
    assert find_run(tmp_path, first).provenance == PROVENANCE
    before = (tmp_path / "run.json").read_bytes()
    assert start_run(tmp_path, PROVENANCE, extra={"min_score": 0.5}, parent=first) == derived
    assert (tmp_path / "run.json").read_bytes() == before
    assert start_run(tmp_path, PROVENANCE) == first
    assert find_run(tmp_path).fingerprint == first


def test_other_versions_of_packages_are_warned_of(tmp_path):
    start_run(tmp_path, PROVENANCE)
    with pytest.warns(RasaWarning, match=r"goes on with other versions: torch 2\.10 -> 2\.11"):
        start_run(tmp_path, {**PROVENANCE, "versions": {"rasa": "1", "torch": "2.11"}})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not readable as JSON"),
        ("[]", "malformed"),
        ('{"schema": "rasa.dataset/9"}', "schema is 'rasa.dataset/9'"),
        ('{"schema": "rasa.dataset/1", "current": "x", "runs": {}}', "current run 'x' is none of its runs"),
        ('{"schema": "rasa.dataset/1", "current": "x", "runs": {"x": {"odd": 1}}}', "malformed"),
        ("[" * 100_000, "not readable as JSON"),
    ],
)
def test_a_damaged_run_json_is_named(tmp_path, text, reason):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FormatError, match=rf"run\.json: .*{reason}"):
        read_runs(tmp_path)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"is no labelled dataset: it has no run\.json"):
        find_run(tmp_path)
    start_run(tmp_path, PROVENANCE)
    with pytest.raises(InputError, match="has no run 'zz'; its runs: "):
        find_run(tmp_path, "zz")
