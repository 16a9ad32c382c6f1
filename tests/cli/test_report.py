"""``rasa label`` and then ``rasa report``, with the plugin's fake models."""

import pytest


@pytest.fixture
def dataset(rasa, preset, photo, tmp_path):
    """Folder of a labelled dataset of two photos and a broken one."""
    for i in range(2):
        photo(tmp_path / "photos" / f"{i}.png", width=40 + i)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no photo")
    done = rasa("label", tmp_path / "photos", "--out", tmp_path / "set", "--preset", preset)
    assert done.exit_code == 0, done.output
    return tmp_path / "set"


def test_a_dataset_becomes_a_page(rasa, dataset):
    done = rasa("report", dataset)
    assert done.exit_code == 0, done.output
    page = dataset / "report.html"
    assert done.stdout.strip() == str(page)
    assert "3 images" in done.stderr
    text = page.read_text(encoding="utf-8")
    assert "<!doctype html>" in text
    assert text.count("<img ") >= 4
    assert "broken.jpg" in text


def test_samples_and_out_are_obeyed(rasa, dataset, tmp_path):
    done = rasa("report", dataset, "--out", tmp_path / "deep" / "page.html", "--samples", "0")
    assert done.exit_code == 0, done.output
    assert 'id="samples"' not in (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert not (dataset / "report.html").exists()


def test_photos_that_are_gone_are_counted(rasa, dataset, tmp_path):
    (tmp_path / "photos" / "0.png").unlink()
    done = rasa("report", dataset)
    assert done.exit_code == 0
    assert "warning: 1 photos of the samples have moved or changed" in done.stderr


def test_mistakes_take_one_line(rasa, dataset, tmp_path):
    done = rasa("report", tmp_path / "photos")
    assert done.exit_code == 1
    assert "is no labelled dataset" in done.stderr
    (tmp_path / "thesis.html").write_text("mine", encoding="utf-8")
    done = rasa("report", dataset, "--out", tmp_path / "thesis.html")
    assert done.exit_code == 1
    assert "is there already and no report of rasa" in done.stderr
    assert rasa("report", dataset, "--samples", "61").exit_code == 2
    done = rasa("report", dataset, "--run", "zz")
    assert done.exit_code == 1
    assert "no run 'zz'" in done.stderr
