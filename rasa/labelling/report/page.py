"""The page itself: its head, the samples, and all sections in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from rasa._version import __version__
from rasa.draw.colors import tag_color
from rasa.labelling.report import charts, sections
from rasa.labelling.report.facts import Facts
from rasa.labelling.report.picks import GROUPS
from rasa.labelling.report.sheets import Thumb
from rasa.labelling.report.text import data_uri, name, number, plural, safe, source_hash

_FEW = 4  # pictures of a tag that need no groups
_LOOK = {"best": "highest scores", "worst": "lowest scores", "random": "at random"}
_MAX_CONFIG = 20_000  # characters


def build_page(facts: Facts) -> str:
    """The whole page as HTML; the same facts give the same text."""
    style, script = _asset("style.css"), _asset("script.js")
    parts = {
        "Tags": ("tags", sections.tag_table(facts)),
        "Scores": ("scores", sections.score_charts(facts)),
        "Sizes": ("sizes", sections.size_charts(facts)),
        "Together": ("together", sections.together(facts)),
        "Balance": ("balance", sections.balance(facts)),
        "Samples": ("samples", samples(facts)),
        "Time": ("time", sections.times(facts)),
        "Errors": ("errors", sections.errors(facts)),
        "Duplicates": ("duplicates", sections.duplicates(facts)),
    }
    links = "".join(f'<a href="#{anchor}">{title}</a>' for title, (anchor, body) in parts.items() if body)
    nav = f'<nav><div><a href="#overview">Overview</a>{links}<button id="theme" class="js-only" type="button">'
    nav += "Light or dark</button></div></nav>"
    body = "".join(body for _, body in parts.values())
    return (
        f"{_head(facts, style, script)}<body>{_masthead(facts)}{nav}<main>{sections.overview(facts)}{_gallery(facts)}"
        f"{body}{_origin(facts)}</main><script>{script}</script></body></html>\n"
    )


def samples(facts: Facts) -> str:
    """Contact sheets: the best, the worst and some at random, by tag."""
    if not facts.shown:
        return ""
    index = "".join(
        f'<a href="#sheet-{i}">{charts.dot(tag_color(tag))}{name(tag, 40)}</a>' for i, tag in enumerate(facts.shown)
    )
    thumbs: dict[str, dict[str, list[Thumb]]] = {tag: {} for tag in facts.shown}
    for (tag, group, _), thumb in _in_order(facts):
        if tag in thumbs:
            thumbs[tag].setdefault(group, []).append(thumb)
    large: list[str] = []
    small: list[str] = []
    for i, (tag, groups) in enumerate(thumbs.items()):
        few = sum(map(len, groups.values())) <= _FEW
        (small if few else large).append(_sheet(facts, f"sheet-{i}", tag, groups if not few else _by_score(groups)))
    body = f'<div class="index">{index}</div>{"".join(large)}<div class="few">{"".join(small)}</div>'
    return sections.section("samples", "Samples by tag", _samples_lead(facts), body)


def _in_order(facts: Facts) -> list[tuple[tuple[str, str, int], Thumb]]:
    return sorted(facts.sheets.drawn.items(), key=lambda item: (item[0][0], GROUPS.index(item[0][1]), item[0][2]))


def _by_score(groups: Mapping[str, Sequence[Thumb]]) -> dict[str, list[Thumb]]:
    return {"all": sorted((thumb for group in groups.values() for thumb in group), key=lambda thumb: -thumb.score)}


def _samples_lead(facts: Facts) -> str:
    lead = "Every picture shows one object of the tag, or the photo where the tag has no objects."
    if len(facts.shown) < len(facts.tally.tags):
        lead += f" The {len(facts.shown)} tags with most objects."
    if facts.sheets.unreadable:
        lead += f" {plural(len(facts.sheets.unreadable), 'photo')} moved or changed since they were labelled."
    return lead


@cache
def _asset(file: str) -> str:
    return Path(__file__).with_name(file).read_text(encoding="utf-8")


def _head(facts: Facts, style: str, script: str) -> str:
    # Nothing may be fetched; the one style and the one script are known by their hashes.
    policy = (
        f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {source_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="generator" content="rasa {safe(__version__)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{safe(facts.about.name)} – labels</title><style>{style}</style></head>"
    )


def _masthead(facts: Facts) -> str:
    tally = facts.tally
    preset = facts.about.provenance.get("preset")
    by = f" by the preset <b>{safe(preset)}</b>" if isinstance(preset, str) else ""
    lead = (
        f"<b>{number(tally.objects)}</b> objects of <b>{number(len(tally.tags))}</b> tags on "
        f"<b>{number(tally.images - tally.failed)}</b> images, labelled{by}."
    )
    return (
        f'<header class="masthead"><div><p class="over">Labelled dataset</p><h1>{name(facts.about.name)}</h1>'
        f'<p class="lead">{lead}</p></div></header>'
    )


def _gallery(facts: Facts) -> str:
    thumbs = [thumb for (tag, _, _), thumb in _in_order(facts) if not tag and thumb.jpeg]
    if not thumbs:
        return ""
    rows = "".join(
        '<div class="row">'
        + "".join(f'<figure class="r{_aspect(thumb)}">{_img(thumb)}</figure>' for thumb in row)
        + "</div>"
        for row in _two_rows(thumbs)
    )
    lead = "Photos with the highest scores, with the lowest, and at random, and all that was found on them."
    return sections.section("look", "A first look", lead, f'<div class="gallery">{rows}</div>')


def _two_rows(thumbs: Sequence[Thumb]) -> Iterator[Sequence[Thumb]]:
    """Cut where both rows come out about as high."""
    if len(thumbs) < 4:
        yield thumbs
        return
    wide = [_aspect(thumb) for thumb in thumbs]
    cut = min(range(1, len(thumbs)), key=lambda place: abs(sum(wide[:place]) - sum(wide[place:])))
    yield from (thumbs[:cut], thumbs[cut:])


def _sheet(facts: Facts, anchor: str, tag: str, groups: Mapping[str, Sequence[Thumb]]) -> str:
    tally = facts.tally.tags[tag]
    what = f"{plural(tally.objects, 'object')} on {plural(tally.images, 'image')}"
    what = what if tally.objects else f"{plural(tally.images, 'image')}, no objects"
    parts = []
    for group, thumbs in groups.items():
        heading = f"<h4>{_LOOK[group]}</h4>" if group in _LOOK else ""
        parts.append(f'<div>{heading}<div class="thumbs">{"".join(map(_figure, thumbs))}</div></div>')
    body = parts[0] if len(parts) == 1 else f'<div class="groups">{"".join(parts)}</div>'
    title = f"{charts.dot(tag_color(tag))}{name(tag)}<small>{what}</small>"
    return f'<div class="card sheet" id="{anchor}"><h3>{title}</h3>{body}</div>'


def _aspect(thumb: Thumb) -> int:
    """Tenths, from 4 to 30: the style sheet has a class for each, as a strict policy allows no inline style."""
    return min(30, max(4, round(10 * thumb.size_wh[0] / thumb.size_wh[1])))


def _figure(thumb: Thumb) -> str:
    short = thumb.caption.replace("\\", "/").rpartition("/")[2] or thumb.caption
    picture = _img(thumb) if thumb.jpeg else '<div class="gone">photo moved or changed</div>'
    caption = f'<b>{thumb.score:.2f}</b><span title="{safe(thumb.caption)}">{name(short, 60)}</span>'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _img(thumb: Thumb) -> str:
    (width, height), alt = thumb.size_wh, safe(thumb.caption)
    return f'<img src="{data_uri(thumb.jpeg)}" width="{width}" height="{height}" alt="{alt}" title="{alt}">'


def _origin(facts: Facts) -> str:
    text = json.dumps(facts.about.provenance, ensure_ascii=False, indent=2, sort_keys=True, default=str)
    body = (
        f'<div class="card"><p>Fingerprint <code>{safe(facts.about.fingerprint)}</code>: labels with the same '
        "fingerprint were made by the same models, thresholds, words and code.</p>"
        f"<details><summary>What made these labels</summary><pre>{_lines(text)}</pre></details></div>"
    )
    head = sections.section("origin", "Origin", "What decided every label.", body)
    return f"{head}<footer>Made by rasa {safe(__version__)}. This page fetches nothing.</footer>"


def _lines(text: str) -> str:
    cut = text if len(text) <= _MAX_CONFIG else f"{text[:_MAX_CONFIG]}\n… run.json has the rest"
    return "\n".join(safe(line, 2000) for line in cut.split("\n"))
