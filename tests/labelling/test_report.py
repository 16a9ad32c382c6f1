"""``write_report``: the page says what the dataset holds, trusts no text, fetches nothing, and works in a browser."""

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import InputError, OutputError
from rasa.labelling.dataset import open_dataset
from rasa.labelling.plan import plan_images
from rasa.labelling.report import write as writing
from rasa.labelling.report import write_report
from rasa.labelling.report.picks import Pick, Picker
from rasa.labelling.report.sheets import crop
from rasa.labelling.report.tally import Histogram
from rasa.labelling.runs import start_run
from rasa.labelling.store import LabelledRow, write_shard
from rasa.types import Failure, Image, Instances, Result, Tags

HOSTILE = '<script>alert("tag")</script>'
PROVENANCE = {"preset": "</script><script>alert(1)</script>", "versions": {"rasa": "0"}, "stages": []}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self._inside = [], {}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self._inside[-1] if self._inside else "", []).append(data)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self):
        return dict(zip(self.texts["dt"], self.texts["dd"], strict=True))


@pytest.fixture
def make(tmp_path):
    """A function: make a dataset of photos; ``find(index, size)`` gives the result of each."""

    def build(count, find, *, size=(48, 32), more=()):
        home = tmp_path / "photos"
        home.mkdir(exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(home / f"{i:04d}.png")
        for name, data in more:
            (home / name).write_bytes(data)
        plan = plan_images(tmp_path / "set", [home])
        run = start_run(tmp_path / "set", PROVENANCE)
        for shard in plan.shards:
            rows = [LabelledRow.of(image, _result(image, find, size)) for image in shard.images]
            write_shard(tmp_path / "set", run, shard, rows)
        return open_dataset(tmp_path / "set")

    return build


def _result(image, find, size):
    if image.error is not None:
        return Result(image.path, (0, 0), failure=image.error)
    index = int(image.file_name and re.search(r"(\d+)\.png", image.path)[1]) if image.path.endswith(".png") else -1
    if index < 0:
        return Result(image.path, (0, 0), failure=Failure("decode", "ImageError", f"no image: {HOSTILE}"))
    return replace(find(index, (size[1], size[0])), name=image.path)


def found(index, size, *, labels=("dog", "cat"), masks=True):
    """Two tags and two objects, whose scores rise with the index."""
    height, width = size
    score = min(1.0, (index + 1) / 40)
    boxes = np.array([[2, 2, width / 2, height - 2], [width / 2, 1, width - 1, height / 2]], np.float32)
    drawn = np.zeros((2, height, width), np.bool_)
    drawn[0, 2 : height - 2, 2 : width // 2] = drawn[1, 1 : height // 2, width // 2 : width - 1] = True
    return Result(
        "x",
        size,
        tags=Tags(labels, np.array([0.75, 0.5], np.float32), kinds=("object", "scene")),
        instances=Instances(boxes, np.full(2, score, np.float32), labels, drawn if masks else None),
        timings={"decode": 0.001, "tag": 0.25},
    )


def test_the_page_says_what_the_dataset_holds(make, tmp_path):
    dataset = make(20, found, more=[("empty.jpg", b""), ("web.jpg", b"<html>")])
    (tmp_path / "photos" / "copy.png").write_bytes((tmp_path / "photos" / "0003.png").read_bytes())
    plan_images(tmp_path / "set", [tmp_path / "photos"])
    summary = write_report(open_dataset(dataset.folder), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.figures["images"] == "22"
    assert page.figures["could not be labelled"] == "2"
    assert page.figures["copies, labelled once"] == "1"
    assert page.figures["different tags"] == "2"
    assert page.figures["objects"] == "40"
    assert page.figures["objects with a mask"] == "100 %"
    assert (summary.images, summary.unreadable) == (22, 0)
    # Twelve a tag, and six photos of the first look.
    assert summary.pictures == len(page.all("img")) == 2 * 12 + 6
    assert summary.bytes == (tmp_path / "report.html").stat().st_size < writing.MAX_BYTES
    assert "250 ms" in page.texts["td"]
    assert any("copy.png" in text for text in page.texts["bdi"])


def test_no_text_of_a_dataset_is_trusted(make, tmp_path):
    names = (HOSTILE, 'x" onload="alert(2)\u202e' + "long" * 500)
    make(8, lambda i, size: found(i, size, labels=names), more=[("<img src=x onerror=alert(3)>.jpg", b"no image")])
    write_report(open_dataset(tmp_path / "set"), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert HOSTILE in page.texts["bdi"]
    for element, attributes in page.elements:
        assert element in ALLOWED, element
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert "longlong" * 100 not in text
    assert not re.search(r"(?<!xmlns=.)https?://", text)


ALLOWED = {
    *("html", "head", "meta", "title", "style", "script", "body", "header", "nav", "main", "section", "footer"),
    *("div", "p", "h1", "h2", "h3", "h4", "b", "a", "br", "pre", "code", "small", "span", "bdi", "button", "label"),
    *("input", "details", "summary", "dl", "dt", "dd", "ul", "li", "figure", "figcaption", "img"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "circle", "rect", "line", "text"),
}


def test_the_policy_allows_the_one_style_and_the_one_script_only(make, tmp_path):
    write_report(make(2, found), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == "data:"
    for kind in ("style", "script"):
        digest = hashlib.sha256("".join(page.texts[kind]).encode()).digest()
        assert rules.pop(f"{kind}-src") == f"'sha256-{b64encode(digest).decode()}'"
    assert rules == {}


def test_the_same_dataset_gives_the_same_bytes_and_a_seed_other_samples(make, tmp_path):
    dataset = make(30, found)
    pages = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_report(dataset, tmp_path / f"{name}.html", seed=seed, samples=6)
        pages.append((tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_sheets_hold_the_best_the_worst_and_others(make, tmp_path):
    write_report(make(20, found), tmp_path / "report.html", samples=6)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    sheet = text[text.index('id="sheet-0"') : text.index('id="sheet-1"')]
    groups = re.split(r"<h4>([^<]*)</h4>", sheet)
    shown = {
        title: re.findall(r"<b>([\d.]+)</b>", body) for title, body in zip(groups[1::2], groups[2::2], strict=True)
    }
    # The scores are (i + 1) / 40 for the twenty photos.
    assert shown["highest scores"] == ["0.50", "0.47"]
    assert shown["lowest scores"] == ["0.03", "0.05"]
    assert len(shown["at random"]) == 2
    assert not set(shown["at random"]) & {"0.50", "0.47", "0.03", "0.05"}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=60, unique=True), st.randoms())
def test_picks_do_not_depend_on_the_order(entries, random):
    pickers = Picker(3, 0), Picker(3, 0)
    shuffled = random.sample(entries, len(entries))
    for picker, order in zip(pickers, (entries, shuffled), strict=True):
        for row, instance in order:
            picker.add(Pick((row * 7 % 11) / 11, row, instance), f"{row}:{instance}")
    first, second = (picker.groups() for picker in pickers)
    assert first == second
    chosen = [pick for group in first.values() for pick in group]
    assert len(chosen) == len(set(chosen)) == min(len(entries), 9)
    scores = sorted((row * 7 % 11) / 11 for row, _ in entries)
    assert [pick.score for pick in first["best"]] == scores[::-1][:3]
    if len(entries) >= 6:
        assert [pick.score for pick in first["worst"]] == scores[:3]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_histograms_keep_count_mean_and_median(values):
    counted = Histogram(np.linspace(0, 1, 21))
    counted.add(values)
    assert counted.count == len(values)
    assert counted.mean == pytest.approx(np.mean(values))
    # The median is off by an interval at most, on either side of the two middle values.
    low, high = np.quantile(values, 0.5, method="lower"), np.quantile(values, 0.5, method="higher")
    assert low - 0.05 - 1e-9 <= counted.quantile(0.5) <= high + 0.05 + 1e-9


@given(
    st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 1), st.floats(0.02, 1)
)
def test_a_crop_holds_its_object(height, width, left, top, wide, tall):
    x2, y2 = max(1, width * wide), max(1, height * tall)
    x1, y1 = left * (width - x2), top * (height - y2)
    mask = np.zeros((1, height, width), np.bool_)
    mask[0, int(y1) : int(np.ceil(y1 + y2)), int(x1) : int(np.ceil(x1 + x2))] = True
    boxes = np.array([[x1, y1, min(width, x1 + x2), min(height, y1 + y2)]], np.float32)
    instances = Instances(boxes, np.ones(1, np.float32), ("a",), mask)
    image = Image(np.zeros((height, width, 3), np.uint8))
    part, result = crop(image, Result("x", (height, width), instances=instances), 0)
    assert part.size[0] <= 216
    assert part.size[1] <= 288
    assert result.size == part.size
    share = mask.sum() / mask.size
    assert result.instances.masks.mean() >= min(1, share) * 0.5
    x1, y1, x2, y2 = result.instances.boxes[0]
    assert 0 <= x1 <= x2 <= part.size[1]
    assert 0 <= y1 <= y2 <= part.size[0]


def test_a_page_stays_small(make, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_MAX_PICTURES", 900_000)
    names = [f"tag {i}" for i in range(40)]
    make(40, lambda i, size: found(i, size, labels=(names[i], names[(i + 1) % 40])), size=(288, 216))
    summary = write_report(open_dataset(tmp_path / "set"), tmp_path / "report.html")
    assert summary.bytes < 900_000 + 150_000
    assert 6 < summary.pictures < 30


def test_photos_that_are_gone_have_an_empty_place(make, tmp_path):
    dataset = make(6, found)
    (tmp_path / "photos" / "0002.png").unlink()
    (tmp_path / "photos" / "0004.png").write_bytes(b"another")
    summary = write_report(dataset, tmp_path / "report.html")
    assert summary.unreadable == 2
    page = Page(tmp_path / "report.html")
    assert len([a for a in page.all("div") if a.get("class") == "gone"]) == 4  # two objects on each
    assert write_report(dataset, tmp_path / "none.html", samples=0).unreadable <= 2


@pytest.mark.parametrize(
    "find",
    [
        lambda i, size: Result("x", size),
        lambda i, size: Result("x", size, tags=Tags(("sky",), np.ones(1, np.float32))),
        lambda i, size: found(i, size, masks=False),
        lambda i, size: Result("x", (0, 0), failure=Failure("tag", "RuntimeError", "unlucky")),
        lambda i, size: found(i, size, labels=("日本語", "emoji 🐕")),
    ],
    ids=["nothing", "tags alone", "no masks", "all failed", "other scripts"],
)
@pytest.mark.parametrize("size", [(48, 32), (4, 700)], ids=str)
def test_any_labels_give_a_page(make, tmp_path, find, size):
    summary = write_report(make(3, find, size=size), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.figures["images"] == "3"
    assert summary.unreadable == 0


def test_a_dataset_without_images_gives_a_page(tmp_path):
    start_run(tmp_path / "set", PROVENANCE)
    write_report(open_dataset(tmp_path / "set"), tmp_path / "report.html")
    assert Page(tmp_path / "report.html").figures["images"] == "0"


def test_no_other_file_is_replaced(make, tmp_path):
    dataset, path = make(2, found), tmp_path / "report.html"
    path.write_text("<html>my thesis</html>", encoding="utf-8")
    with pytest.raises(OutputError, match=r"report\.html is there already and no report of rasa; give another --out"):
        write_report(dataset, path)
    assert path.read_text(encoding="utf-8") == "<html>my thesis</html>"
    with pytest.raises(OutputError, match=r"is a folder; give the report a file name"):
        write_report(dataset, tmp_path)
    with pytest.raises(InputError, match=r"samples must be from 0 to 60 pictures a tag, got 61"):
        write_report(dataset, path, samples=61)
    path.unlink()
    write_report(dataset, path)
    write_report(dataset, path)  # its own it may replace


# In a browser


@pytest.fixture
def browser():
    """A headless Chromium."""
    import browser as chromium

    program = chromium.find_chromium()
    if program is None:
        pytest.skip("there is no chromium on this machine")
    with chromium.Browser(program) as page:
        yield page


@pytest.fixture
def report(make, tmp_path):
    """Path of a report with all its sections."""
    names = [
        f"{word} {i}" for i, word in enumerate(["dog", "cat", "ox", HOSTILE, "a-very-long-tag-without-a-space" * 4])
    ]

    def find(i, size):
        return found(
            i, size, labels=(names[i % 5], names[(i * i + 1) % 5 if i % 5 != (i * i + 1) % 5 else (i + 1) % 5])
        )

    make(40, find, size=(160, 120), more=[("web.jpg", b"<html>")])
    write_report(open_dataset(tmp_path / "set"), tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_without_errors_and_requests(browser, report, tmp_path, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.resolve().as_uri()]
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.run("document.images.length") > 20
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    browser.screenshot(tmp_path / "shot.png")
    shot = np.asarray(PIL.Image.open(tmp_path / "shot.png").convert("L"))
    assert (shot[5, 5] < 60) == dark
    assert shot.std() > 10, "nothing is drawn"
    assert (shot[:300] > 150).any()
    assert (shot[:300] < 100).any()


def test_the_table_sorts_and_filters_and_the_colours_change(browser, report):
    browser.open(report)
    column = "[...document.querySelectorAll('#tags tbody tr')].map(row => row.cells[{}].textContent)"
    click = "document.querySelectorAll('#tags th button')[{}].click()"
    browser.run(click.format(0))
    names = browser.run(column.format(0))
    assert len(names) == 5
    assert names == sorted(names, key=str.casefold) or names[0].startswith("<")
    browser.run(click.format(0))
    assert browser.run(column.format(0)) == names[::-1]
    place = browser.run("[...document.querySelectorAll('#tags th')].findIndex(head => head.textContent === 'images')")
    browser.run(click.format(place))
    counts = [int(text) for text in browser.run(column.format(place))]
    assert counts == sorted(counts, reverse=True)
    browser.run("{const f = document.getElementById('filter'); f.value = 'OX'; f.dispatchEvent(new Event('input'))}")
    shown = "[...document.querySelectorAll('#tags tbody tr')].filter(row => !row.hidden).length"
    assert browser.run(shown) == 1
    color = "getComputedStyle(document.body).backgroundColor"
    before = browser.run(color)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(color) != before
    assert browser.problems == []


def test_it_prints(browser, report):
    browser.open(report, dark=True)
    pdf = browser.send("Page.printToPDF", printBackground=True)["data"]
    assert pdf.startswith("JVBERi0")  # %PDF- in base64
    assert browser.problems == []
