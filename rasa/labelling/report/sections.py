"""The sections of the page about numbers; each takes the facts and gives HTML, "" where there is nothing to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rasa.draw.colors import tag_color
from rasa.formats.samples import SPLITS
from rasa.labelling.report import charts
from rasa.labelling.report.facts import Facts
from rasa.labelling.report.tally import TagTally, Tally
from rasa.labelling.report.text import duration, file_size, name, number, percent, plural, safe, table

_MAX_ROWS = 300  # of the table of tags
_MAX_LISTED = 25  # groups of duplicates, kinds of errors
_RARE = 10  # images; detectors that learn from fewer examples of a class rarely find it


class Finding(NamedTuple):
    """One thing that a reader should know first: how bad it is, and the sentence as HTML."""

    kind: str
    text: str


def section(anchor: str, title: str, lead: str, body: str) -> str:
    """A part of the page with a heading."""
    return f'<section id="{anchor}"><header><h2>{title}</h2><p>{lead}</p></header>{body}</section>'


def card(title: str, body: str, note: str = "") -> str:
    """A box with a small heading."""
    foot = f'<p class="note">{note}</p>' if note else ""
    return f'<div class="card"><h3>{title}</h3>{body}{foot}</div>'


def overview(facts: Facts) -> str:
    """The figures of the whole dataset, and what stands out."""
    tally = facts.tally
    labelled = tally.images - tally.failed
    copies = sum(len(group) - 1 for group in facts.about.duplicates)
    figures = [
        ("images", number(tally.images), ""),
        ("could not be labelled", number(tally.failed), "bad" if tally.failed else ""),
        ("copies, labelled once", number(copies), "warn" if copies else ""),
        ("different tags", number(len(tally.tags)), ""),
        ("objects", number(tally.objects), ""),
        ("objects with a mask", percent(tally.masks / tally.objects) if tally.objects else "–", ""),
        ("objects an image", number(tally.objects / labelled) if labelled else "–", ""),
        ("of image files", file_size(tally.bytes), ""),
    ]
    tiles = "".join(f'<div class="{kind}"><dt>{title}</dt><dd>{value}</dd></div>' for title, value, kind in figures)
    items = "".join(
        f'<li class="{kind}"><svg viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="5"/></svg>'
        f"<span>{text}</span></li>"
        for kind, text in findings(facts)
    )
    return f'<section id="overview"><dl class="figures">{tiles}</dl><ul class="findings">{items}</ul></section>'


def findings(facts: Facts) -> Iterator[Finding]:
    """What a reader should know before anything else."""
    tally, labelled = facts.tally, facts.tally.images - facts.tally.failed
    if not facts.about.finished:
        yield Finding("bad", "Labelling is not finished: run the same <code>rasa label</code> command again.")
    if tally.failed:
        share = percent(tally.failed / tally.images)
        yield Finding("bad", f'{plural(tally.failed, "image")} ({share}) failed: <a href="#errors">reasons</a>.')
    if facts.about.duplicates:
        groups = plural(len(facts.about.duplicates), "image")
        yield Finding("warn", f'{groups} in more than one place: <a href="#duplicates">which</a>.')
    if tally.empty:
        yield Finding(
            "warn", f"{plural(tally.empty, 'image')} ({percent(tally.empty / labelled)}) without any tag or object."
        )
    counts = sorted((tag.objects for tag in tally.tags.values() if tag.objects), reverse=True)
    if len(counts) >= 10:
        share = percent(sum(counts[:5]) / tally.objects)
        kind = "warn" if sum(counts[:5]) > tally.objects / 2 else "good"
        yield Finding(
            kind, f'The five most frequent labels hold {share} of all objects: <a href="#balance">balance</a>.'
        )
    rare = sum(tag.images < _RARE for tag in tally.tags.values())
    if rare and labelled >= 5 * _RARE:
        of = f"{number(rare)} of {plural(len(tally.tags), 'tag')}"
        yield Finding("warn", f"{of} are on fewer than {_RARE} images: merge or drop them.")
    if tiny := int(tally.coco_areas.counts[0]):
        yield Finding("good", f"{percent(tiny / tally.objects)} of the objects are smaller than 32 × 32 pixels.")


def tag_table(facts: Facts) -> str:
    """Every tag as a row, up to a number that a page can carry."""
    ranked = list(facts.tally.ranked())
    if not ranked:
        return ""
    most = max(tag.images for _, tag in ranked)
    kinds = any(tag.kind for _, tag in ranked)
    rows = [_tag_row(label, tag, most, kinds=kinds) for label, tag in ranked[:_MAX_ROWS]]
    head = [
        ("tag", "t"), *([("kind", "")] if kinds else []), ("images", "n"), ("", ""), ("objects", "n"),
        ("mean score", "n"), ("scores 0 to 1", ""), ("median size", "n"),
    ]  # fmt: skip
    lead = "A click on a heading sorts. Scores are the detector's, or the tagger's where a tag has no objects."
    if len(ranked) > _MAX_ROWS:
        lead += f" The {_MAX_ROWS} most frequent of {number(len(ranked))}."
    field = '<input id="filter" type="search" autocomplete="off">'
    tools = f'<div class="tools js-only"><label>Find a tag {field}</label></div>'
    body = f'<div class="card">{tools}<div class="tall">{table(head, rows, sortable=True)}</div></div>'
    return section("tags", "Tags", lead, body)


def _tag_row(label: str, tag: TagTally, most: int, *, kinds: bool) -> list[str]:
    scores = tag.shown_scores
    size = tag.shares.quantile(0.5)
    return [
        f"{charts.dot(tag_color(label))}{name(label)}",
        *([safe(tag.kind)] if kinds else []),
        number(tag.images),
        charts.meter(tag.images / most),
        number(tag.objects),
        f"{scores.mean:.2f}",
        charts.spark(scores, what=f"scores of {label}"),
        f"data:{size:.6f}|{percent(size)}" if tag.objects else "data:-1|–",
    ]


def score_charts(facts: Facts) -> str:
    """Histograms of the scores of tags, boxes and masks."""
    tally = facts.tally
    kinds = [("Tags", tally.tag_scores, "tagger"), ("Boxes", tally.scores, "detector")]
    kinds.append(("Masks", tally.mask_scores, "segmenter"))
    cards = "".join(
        card(
            title,
            charts.histogram(
                scores, lambda edge: f"{edge:.2f}".rstrip("0").rstrip("."), what=f"scores of {title.lower()}",
                ticks=(0, 5, 10, 15, 20), median=True,
            ),
            f"{number(scores.count)} scores of the {model}, mean {scores.mean:.2f}",
        )
        for title, scores, model in kinds
        if scores.count
    )  # fmt: skip
    lead = "How sure the models were. The dashed line is the median; a cliff at the left is the threshold."
    return section("scores", "Scores", lead, f'<div class="grid three">{cards}</div>') if cards else ""


def size_charts(facts: Facts) -> str:
    """How large objects and photos are, and how many there are of each."""
    tally = facts.tally
    if tally.images == tally.failed:
        return ""
    cards = []
    if tally.objects:
        chart = charts.histogram(
            tally.shares,
            percent,
            what="share of the image that objects cover",
            ticks=(0, 8, 16, 24, 32, 40),
            median=True,
        )
        cards.append(card("Share of the image that an object covers", chart, _coco_sizes(tally)))
    cards += [
        card("Objects an image", charts.bars(tally.objects_per_image, charts.interval, what="objects an image")),
        card("Tags an image", charts.bars(tally.tags_per_image, charts.interval, what="tags an image")),
        card("Photos by megapixels", charts.bars(tally.megapixels, charts.below, what="photos by megapixels")),
    ]
    lead = "Areas are those of the masks, or of the boxes where there are none."
    return section("sizes", "Sizes and numbers", lead, f'<div class="grid">{"".join(cards)}</div>')


def _coco_sizes(tally: Tally) -> str:
    names = ("small (below 32² pixels)", "medium", "large (from 96² pixels)")
    counts = zip(names, tally.coco_areas.counts, strict=True)
    return "By COCO's sizes: " + ", ".join(f"{percent(int(count) / tally.objects)} {title}" for title, count in counts)


def together(facts: Facts) -> str:
    """Which tags share photos."""
    pairs = facts.pairs
    if len(pairs.names) < 2:
        return ""
    shares = pairs.shares
    drawn = charts.matrix(pairs.names, shares, what="tags that come together")
    order = sorted(
        ((int(pairs.counts[i, j]), i, j) for i in range(len(pairs.names)) for j in range(i)),
        key=lambda pair: (-pair[0], pair[1:]),
    )[:12]
    rows = [
        [name(pairs.names[j], 40), name(pairs.names[i], 40), number(count), percent(_jaccard(pairs.counts, i, j))]
        for count, i, j in order
        if count
    ]
    listed = table([("tag", ""), ("with", ""), ("images", "n"), ("of either", "n")], rows) if rows else "<p>None.</p>"
    shaded = f'<div class="card"><div class="scroll">{drawn}</div></div>'
    body = f'<div class="grid wide">{shaded}{card("Most often together", listed)}</div>'
    lead = (
        f"The {len(pairs.names)} most frequent tags. A cell is the share of the images with the tag of its row that "
        "have the tag of its column too. A full cell is often one thing under two names."
    )
    return section("together", "Tags that come together", lead, body)


def _jaccard(counts: np.ndarray[tuple[int, int], np.dtype[np.int64]], i: int, j: int) -> float:
    either = int(counts[i, i] + counts[j, j] - counts[i, j])
    return int(counts[i, j]) / either if either else 0.0


def balance(facts: Facts) -> str:
    """How a split would share out images and classes."""
    parts, total = facts.parts, sum(facts.parts.images.values())
    if total == 0:
        return ""
    shares = [parts.images[split] / total for split in SPLITS]
    keys = "".join(
        f"<span>{charts.key(i)}{split} <b>{number(parts.images[split])}</b> images</span>"
        for i, split in enumerate(SPLITS)
    )
    rows = []
    for label, counts in zip(parts.names, parts.objects.tolist(), strict=True):
        whole = max(1, sum(counts))
        bar = charts.stacked([count / whole for count in counts])
        rows.append([f"{charts.dot(tag_color(label))}{name(label)}", *(number(count) for count in counts), bar])
    head = [("class", "t"), *((split, "n") for split in SPLITS), ("share", "")]
    body = (
        f'<div class="stack"><div class="card">{charts.stacked(shares)}<div class="facts">{keys}</div></div>'
        f'<div class="card"><div class="tall">{table(head, rows, sortable=True)}</div></div></div>'
    )
    lead = (
        "What a split into 80 % train, 10 % val and 10 % test gives: by image, with the seed 0, so that no photo is in "
        "two parts. Objects of the most frequent classes; a class without any in a part cannot be judged there."
    )
    return section("balance", "Balance and split", lead, body)


def times(facts: Facts) -> str:
    """Where the time went."""
    seconds = {stage: counted for stage, counted in facts.tally.seconds.items() if counted.total > 0}
    whole = sum(counted.total for counted in seconds.values())
    if not whole:
        return ""
    ordered = sorted(seconds.items(), key=lambda item: -item[1].total)
    rows = [
        [
            f"{charts.key(i)}{name(stage)}",
            f"data:{counted.mean:.9f}|{duration(counted.mean)}",
            f"data:{counted.quantile(0.5):.9f}|{duration(counted.quantile(0.5))}",
            f"data:{counted.quantile(0.95):.9f}|{duration(counted.quantile(0.95))}",
            f"data:{counted.total:.6f}|{duration(counted.total)}",
            percent(counted.total / whole),
        ]
        for i, (stage, counted) in enumerate(ordered)
    ]
    head = [("stage", "t"), ("mean", "n"), ("median", "n"), ("95 % below", "n"), ("in all", "n"), ("share", "n")]
    bar = charts.stacked([counted.total / whole for _, counted in ordered])
    images = max(counted.count for counted in seconds.values())
    each = f"{duration(whole / images)} each, {duration(whole)} in all"
    lead = f"Seconds an image by stage, over {plural(images, 'image')}: {each}."
    return section("time", "Time", lead, f'<div class="card">{bar}<br>{table(head, rows, sortable=True)}</div>')


def errors(facts: Facts) -> str:
    """Why images have no labels."""
    tally = facts.tally
    if not tally.failed:
        return ""
    rows = []
    for (stage, kind), count in sorted(tally.failures.items(), key=lambda item: (-item[1], item[0]))[:_MAX_LISTED]:
        examples = "<br>".join(
            f"{name(path)}<br><span class=soft>{name(message, 220)}</span>"
            for path, message in tally.failed_names[stage, kind]
        )
        rows.append([safe(kind), safe(stage), number(count), examples])
    head = [("kind", ""), ("stage", ""), ("images", "n"), ("for example", "p")]
    lead = f"{number(tally.failed)} images have no labels. Their rows in the dataset say why."
    return section("errors", "Errors", lead, f'<div class="card">{table(head, rows)}</div>')


def duplicates(facts: Facts) -> str:
    """Images that are there more than once."""
    groups: Sequence[Sequence[str]] = facts.about.duplicates
    if not groups:
        return ""
    rows = [
        [name(group[0]), "<br>".join(name(path) for path in group[1:4]) + _more(len(group) - 4)]
        for group in groups[:_MAX_LISTED]
    ]
    lead = "The same bytes under several names. They were labelled once."
    if len(groups) > _MAX_LISTED:
        lead += f" The first {_MAX_LISTED} of {number(len(groups))}."
    body = table([("labelled", "p"), ("copies", "p")], rows)
    return section("duplicates", "Duplicates", lead, f'<div class="card">{body}</div>')


def _more(count: int) -> str:
    return f"<br>and {number(count)} more" if count > 0 else ""
