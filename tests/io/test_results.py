"""Results as JSON Lines: whole, in bounded memory, and never half a file."""

import pytest

from rasa import Pipeline, Result, read_results, write_results
from rasa.errors import FormatError, InputError, OutputError
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, sample_images


@pytest.fixture
def results():
    return Pipeline(FakeTagger(), FakeDetector(), FakeSegmenter())(sample_images())


def test_round_trip(tmp_path, results):
    path = tmp_path / "results.jsonl"
    assert write_results(path, iter(results)) == len(results)
    assert [r.to_json() for r in read_results(path)] == [r.to_json() for r in results]
    assert [file.name for file in tmp_path.iterdir()] == ["results.jsonl"]


def test_no_results_make_an_empty_file(tmp_path):
    assert write_results(tmp_path / "r.jsonl", []) == 0
    assert list(read_results(tmp_path / "r.jsonl")) == []


def test_what_came_before_an_error_is_kept(tmp_path, results):
    def broken():
        yield results[0]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_results(tmp_path / "r.jsonl", broken())
    assert [r.name for r in read_results(tmp_path / "r.jsonl")] == [results[0].name]


def test_an_error_before_the_first_result_leaves_the_old_file(tmp_path, results):
    def broken():
        raise RuntimeError("no weights")
        yield

    path = tmp_path / "r.jsonl"
    write_results(path, results)
    with pytest.raises(RuntimeError):
        write_results(path, broken())
    assert len(list(read_results(path))) == len(results)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_broken_line_is_named(tmp_path, results):
    path = tmp_path / "r.jsonl"
    path.write_text(results[0].to_json() + "\n\n{oops\n", encoding="utf-8")
    lines = read_results(path)
    assert isinstance(next(lines), Result)
    with pytest.raises(FormatError, match=r"r\.jsonl, line 3: not a rasa result"):
        next(lines)


def test_missing_places(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        list(read_results(tmp_path / "none.jsonl"))
    with pytest.raises(OutputError, match="choose a writable folder"):
        write_results(tmp_path / "none" / "r.jsonl", [])
