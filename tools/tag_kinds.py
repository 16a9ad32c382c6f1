"""Make ``rasa_ram/tag_kinds.toml``: which tags of the published lists can have a box.

    python tools/tag_kinds.py WORDNET LIST [LIST ...] > rasa_ram/tag_kinds.toml

WORDNET is the folder of WordNet 3.0's files (``data.noun``, ``index.noun``; Debian's wordnet-base puts them into
/usr/share/wordnet), each LIST is ``NAME=FILE``, where NAME is the list's in ``rasa/checkpoints.toml``.

A tag is looked up as a whole, else by its last word. The lexicographer file of its first sense says its kind, and
two of its hypernyms tell places from things. Where that misleads, the tables below say the kind by word; they are
the author's judgement, made by looking through all tags that the rules call no object, and through the artifacts.
In doubt a tag is an object: a wrongly hidden object costs its box, a wrongly sent scene costs a box too many.
"""  # noqa: INP001  (a script, not a package)

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

# WordNet's manual page lexnames(5), the noun files 03 to 28.
LEXICOGRAPHER_FILES = [
    "Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
]  # fmt: skip
FIRST_FILE = 3  # number of noun.Tops
KIND_OF_FILE = {
    "act": "action",
    "event": "action",
    **dict.fromkeys(("location", "phenomenon", "time"), "scene"),
    **dict.fromkeys(("attribute", "cognition", "feeling", "motive", "relation", "state"), "attribute"),
}
# Senses whose kinds are places: room.n.01 and establishment.n.04, by word and number.
PLACES = (("room", 0), ("establishment", 3))
# Endings of nouns as in WordNet's manual page morphy(7).
PLURALS = (
    ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"), ("s", ""),
)  # fmt: skip
# A phrase that begins or ends so is no noun.
VERBS = frozenset({"climb", "play", "playing"})
PARTICLES = frozenset({"around", "at", "by", "for", "in", "on", "through", "to", "up", "with"})

# By tag, or by the last word of a tag behind a tilde. Separated by commas.
EXCEPTIONS = {
    "object": """
        ~cloud, ~leave, ~light, ~make, ~market stall, ~model, ~pant, ~path, ~post, ~racket, ~ring, ~roller, ~scale,
        ~top, ~wave, alarm, amusement ride, approach, aurora, avenue, award, baby seat, bait, bangs, bank vault, bar,
        baseball, basketball, bass, beauty, berth, bikini, binocular, board game, bolt, bonfire, bus stop, bust, cab,
        cabin, cabinetry, cable car, calendar, campfire, case, centerpiece, charm, chicken breast, chihuahua, chile,
        city skyline, clothe, clutch, cockpit, constellation, construction, control, coral, craft, crest, crossing,
        cycle, desktop, domicile, drain, electronic, elevator car, enter, explosion, eye shadow, family home, fawn,
        finish line, fire, fireman, fishbowl, flake, flash, flip-flop, float, football, forest fire, foundation, gas,
        ghost, goal, goggle, grave, grid, hamburg, handstand, headquarter, headquarters, heart, heart shape, hippo,
        homework, house exterior, image, injection, installation, jersey, kaleidoscope, labrador, landmark, lawn,
        leftover, lichen, lift, lighting, lightning, liner, locker, lottery, mahjong, mansion, mark, medicine, mess,
        microwave, molding, movie poster image, nativity scene, newsstand, number, obstacle course, orbit, origami,
        palette, pall, pallet, pass, passage, patch, perfume, pest, photo, pillar, pitch, plan, playground, present,
        prison, puff, raindrop, ray, receipt, reflection, relief, relish, residence, ripple, roll, rooftop, rugby,
        ruin, ruins, sake, scar, scissor, scratch, seat, shade, shadow, shear, shelve, showcase, sideline, silhouette,
        skiing shoes, skyline, sloth, smoke, snow, snowflake, soil, sombrero, span, spark, sphere, spike, splash,
        spotlight, sprinkle, stage, stain, stall, step, stew, straddle, summit, swing, swinge, tap, tapestry, teal,
        tee, telephone box, tennis, thing, tick, ticket booth, tide, toilet, tornado, trim, tv personality, vacuum,
        vanity, volleyball, water feature, water level, weight, whistle, wildfire, wound, wrench, writing
    """,
    "scene": """
        ~arena, ~forest, ~garden, ~laboratory, ~market, ~plantation, ~restaurant, ~rink, ~village, academy, airport,
        airport terminal, arcade, archaelogical excavation, archipelago, army base, art exhibition, art studio,
        artists loft, atmosphere, auditorium, auto showroom, backyard, badlands, banquet hall, basement,
        bowling alley, burial chamber, bus station, cafe, cafeteria, camp, canteen, car dealership, car wash,
        caribbean, chamber, chemistry lab, cinema, circus, city nightview, city square, city view, cityscape, clinic,
        coffee shop, conference hall, continent, corridor, course, courtyard, cyclone, dining area, disaster, disco,
        earthquake, eclipse, ecosystem, estate, excavation, exhibition, facility, factory workshop, fair, farm,
        fire department, fitness course, food court, gallery, golf course, grove, gym, hall, hallway, highland,
        hill country, hill station, home office, home theater, horse farm, indoor, intersection, izakaya,
        kindergarten, ktv, lab, land, landslide, laundromat, lecture hall, legislative chamber, living space, loft,
        mall, martial arts gym, mezzanine, mine, mountain view, music studio, nature, nature reserve, navratri,
        night view, orchard, orchestra pit, outdoor, parish, parking, pedestrian street, pharmacy, plain,
        playingfield, post office, promenade, quarry, railway station, rainforest, reception, recording studio,
        retail, rural, scenery, sea view, shipyard, shopping street, space, station, street corner, studio,
        subway station, suite, sushi bar, television studio, terminal, thunder, tourist attraction, town square,
        training ground, tree farm, tundra, underwater, universe, urban, vineyard, waiting hall, wetland, wilderness,
        wind farm, wine cellar, woodland, workplace, workshop, world, zoo
    """,
    "action": """
        ~event, ~match, act, add, aid, airshow, applause, argument, assembly, baby shower, balance, banquet, beat,
        bend, bite, broadcasting, build, burn, buy, call, catch, championship, cheer, climb, collect, concert,
        conference, convention, conversation, crush, cut, dance, debate, dinner party, discussion, dive, drag, draw,
        drift, duet, fall, feast, festival, fill, film premiere, flight, formula 1, gather, gathering, gig, give, go,
        graze, greeting, grind, handshake, hang, hide, honeymoon, huddle, hunt, interview, jog, karting, landing,
        laugh, launch, launch party, lay, leak, lecture, lick, lie, load, make, march, marriage, meditation, meeting,
        mission, motorsport, mount, mountain biking, music festival, news conference, offer, opera, operation, parade,
        party, pay, performance, photoshoot, picnic, play, portrait session, pose, premiere, press conference,
        proposal, protest, rally, read, reading, release, remove, rock concert, salute, see, seminar, set, share,
        singe, sleep, smile, speech, stab, standing, stir, stretch, super bowl, surgery, surround, tackle, take, talk,
        teach, test, thinking, triathlon, turn, vacation, vigil, wash, wear, wedding party, wedding reception,
        wheelie, wine tasting, wrap, yoga
    """,
    "attribute": """
        ~film, ~illustration, ~photo, 3d, 3D CG rendering, 3d cg rendering, adaptation, aged, air line, angle, anime,
        app, array, association, audio, backlight, blank, bold, border, brand, business, cartoon, charity, circular,
        classic, clip art, close-up, comedy, commercial, community, company, corner, damage, date, dead, dermopathy,
        design, destruction, direct, documentary, dozen, drama, dry, electricity, empty, energy, erosion,
        face close-up, family portrait, fat, few, fiction, film format, five, flat, forward, four, French, gothic,
        government, government agency, grey, half, history, industry, infrastructure, interior design, jazz, legend,
        lens flare, line art, little, live, lovely, lush, martial, media, metallic, modern, monochrome, motif, movie,
        much, music, musical, mythology, narrow, natural, news, one, open, opening, organization, ornamental, out,
        outline, phenomenon, plaid, poetry, polka dot, pop, profession, profile, project picture, publicity portrait,
        quarter, rear, recipe, religious, rich, romantic, round, royal, rustic, screenshot, selfie, shallow,
        shirtless, short, side, small, snapshot, software, song, sport association, steep, still life, stock, stripe,
        studio portrait, studio shot, system, technology, three, traffic jam, transparency, tv drama, tv programme,
        tv show, tv sitcom, two, up, variety, warm, watermark overlay stamp, white, young
    """,
}


class WordNet:
    """Nouns, and which words are verbs or adjectives."""

    def __init__(self, folder: Path) -> None:
        self._index = {part: _read_index(folder / f"index.{part}") for part in ("noun", "verb", "adj")}
        self._irregular = dict(line.split()[:2] for line in (folder / "noun.exc").read_text().splitlines())
        self._files, self._hypernyms = _read_synsets(folder / "data.noun")

    def file_of(self, synset: str) -> str:
        """The lexicographer file of a synset."""
        return LEXICOGRAPHER_FILES[self._files[synset]]

    def senses(self, word: str) -> list[str]:
        """Synsets of a noun, the most frequent first; of its singular if it is none itself."""
        nouns = self._index["noun"]
        forms = [word, self._irregular.get(word, "")]
        forms += [word.removesuffix(end) + start for end, start in PLURALS if word.endswith(end)]
        return next((nouns[form] for form in forms if form in nouns), [])

    def is_a(self, word: str, part: str) -> bool:
        """Whether ``word`` is in the index of ``"verb"`` or ``"adj"``."""
        return word in self._index[part]

    def ancestors(self, synset: str) -> set[str]:
        """The synset and all that it is a kind of."""
        return {synset}.union(*(self.ancestors(parent) for parent in self._hypernyms[synset]))


def kind_of(tag: str, wordnet: WordNet) -> str:
    """One of object, scene, action and attribute."""
    told = _told(tag)
    if told is not None:
        return told
    words = tag.lower().split()
    senses = wordnet.senses("_".join(words))
    if not senses and len(words) > 1:
        if words[0] in VERBS or words[-1] in PARTICLES:
            return "action"
        senses = wordnet.senses(words[-1])
    if senses:
        return _kind_of_sense(senses[0], wordnet)
    if wordnet.is_a("_".join(words), "verb"):
        return "action"
    return "attribute" if wordnet.is_a("_".join(words), "adj") else "object"


def _kind_of_sense(synset: str, wordnet: WordNet) -> str:
    file = wordnet.file_of(synset)
    places = {wordnet.senses(word)[number] for word, number in PLACES}
    if file == "artifact" and places & wordnet.ancestors(synset):
        return "scene"
    return KIND_OF_FILE.get(file, "object")


def _told(tag: str) -> str | None:
    table = {" ".join(entry.split()): kind for kind, text in EXCEPTIONS.items() for entry in text.split(",")}
    if tag in table:
        return table[tag]
    words = tag.split()
    endings = (" ".join(words[start:]) for start in range(len(words)))
    return next((table["~" + ending] for ending in endings if "~" + ending in table), None)


def _read_index(path: Path) -> dict[str, list[str]]:
    rows = (line.split() for line in path.read_text().splitlines() if not line.startswith(" "))
    return {row[0]: row[len(row) - int(row[2]) :] for row in rows}


def _read_synsets(path: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    files, hypernyms = {}, {}
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        fields = line.partition(" | ")[0].split()
        files[fields[0]] = int(fields[1]) - FIRST_FILE
        # After the words, two fields each, come the number of pointers and four fields for each of them.
        pointers = fields[5 + 2 * int(fields[3], 16) :]
        hypernyms[fields[0]] = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in {"@", "@i"}]
    return files, hypernyms


def _table(name: str, path: Path, wordnet: WordNet) -> str:
    data = path.read_bytes()
    kinds = [kind_of(tag.strip(), wordnet) for tag in data.decode("utf-8").removesuffix("\n").split("\n")]
    letters = "".join({"object": "o", "scene": "s", "action": "a", "attribute": "t"}[kind] for kind in kinds)
    rows = "\n".join(letters[start : start + 100] for start in range(0, len(letters), 100))
    return f'\n[{name}]\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nkinds = """\n{rows}\n"""\n'


def main() -> None:
    """Write the table of all lists to standard output."""
    wordnet = WordNet(Path(sys.argv[1]))
    lists = [argument.partition("=") for argument in sys.argv[2:]]
    sys.stdout.write(
        "# The kind of each tag of the published lists, one letter a row of the list: o object, s scene, a action,\n"
        "# t attribute. Made by tools/tag_kinds.py from WordNet 3.0 and its author's judgement; do not edit.\n"
    )
    for name, _, path in lists:
        sys.stdout.write(_table(name, Path(path), wordnet))


if __name__ == "__main__":
    main()
