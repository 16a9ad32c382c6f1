"""A folder in WordNet's format, made here of a few synsets."""

from dataclasses import dataclass

LICENCE = "  1 A folder made for tests; the two spaces mark a line of the licence.\n"
LETTERS = {"noun": "n", "verb": "v", "adj": "a"}


@dataclass(frozen=True)
class Row:
    """A synset: part, number of the lexicographer file, words, hypernyms and antonyms by name."""

    part: str
    file: int
    words: tuple[str, ...]
    above: tuple[str, ...] = ()
    opposite: tuple[str, ...] = ()
    gloss: str = "a gloss | with a bar"


ROWS = {
    "thing": Row("noun", 3, ("thing",)),
    "carnivore": Row("noun", 5, ("carnivore",), ("thing",)),
    "canine": Row("noun", 5, ("canine",), ("carnivore",)),
    "feline": Row("noun", 5, ("feline",), ("carnivore",)),
    "dog": Row("noun", 5, ("dog", "domestic_dog", "Canis_familiaris"), ("canine",)),
    "puppy": Row("noun", 5, ("puppy",), ("dog",)),
    "cat": Row("noun", 5, ("cat", "true_cat"), ("feline",)),
    "sausage": Row("noun", 13, ("sausage",), ("thing",)),
    "hot_dog": Row("noun", 13, ("hot_dog", "dog"), ("sausage",)),
    "seat": Row("noun", 6, ("seat",), ("thing",)),
    "couch": Row("noun", 6, ("couch", "sofa"), ("seat",), gloss="a seat for more than one person"),
    "room": Row("noun", 6, ("room",), ("thing",)),
    "kitchen": Row("noun", 6, ("kitchen",), ("room",)),
    "living_room": Row("noun", 6, ("living_room",), ("room",)),
    "car": Row("noun", 6, ("car", "auto", "automobile"), ("thing",)),
    "carriage": Row("noun", 6, ("car", "railway_car", "carriage"), ("thing",)),
    "tennis": Row("noun", 4, ("tennis",), ("thing",)),
    "night": Row("noun", 28, ("night",), ("thing",)),
    "left": Row("adj", 0, ("left(a)",), opposite=("right",)),
    "right": Row("adj", 0, ("right",), opposite=("left",)),
    "ride": Row("verb", 38, ("ride",)),
}
# Senses of a word, the most frequent first, where it has several.
ORDER = {"car": ("car", "carriage"), "dog": ("dog", "hot_dog")}
COUNTS = "car%1:06:00:: 1 71\ncar%1:06:01:: 2 2\ncarriage%1:06:00:: 1 3\nnot%4:02:00:: 1 9\n"


def write_wordnet(folder):
    """Write ``index.*``, ``data.*`` and ``cntlist.rev``; gives the folder."""
    lines, offsets = {}, dict.fromkeys(ROWS, 0)
    for _ in range(2):  # offsets have eight digits, so the second pass finds all lines as long as the first
        for part in LETTERS:
            at = len(LICENCE)
            for name, row in ROWS.items():
                if row.part == part:
                    offsets[name] = at
                    lines[name] = _line(row, at, offsets)
                    at += len(lines[name].encode())
    for part in LETTERS:
        names = [name for name, row in ROWS.items() if row.part == part]
        (folder / f"data.{part}").write_text(LICENCE + "".join(lines[name] for name in names), encoding="utf-8")
        (folder / f"index.{part}").write_text(LICENCE + _index(names, offsets, part), encoding="utf-8")
    (folder / "cntlist.rev").write_text(COUNTS, encoding="utf-8")
    return folder


def _line(row, offset, offsets):
    letter = LETTERS[row.part]
    words = " ".join(f"{word} 0" for word in row.words)
    pointers = [("@", name) for name in row.above] + [("!", name) for name in row.opposite]
    text = " ".join(f"{symbol} {offsets[name]:08d} {letter} 0000" for symbol, name in pointers)
    frames = " 01 + 02 00" if row.part == "verb" else ""
    head = f"{offset:08d} {row.file:02d} {letter} {len(row.words):02x} {words} {len(pointers):03d}"
    return f"{head}{' ' if text else ''}{text}{frames} | {row.gloss}  \n"


def _index(names, offsets, part):
    senses = {}
    for name in names:
        for word in ROWS[name].words:
            senses.setdefault(word.partition("(")[0].lower(), []).append(name)
    rows = []
    for word, found in sorted(senses.items()):
        order = ORDER.get(word, tuple(found))
        places = " ".join(f"{offsets[name]:08d}" for name in order)
        rows.append(f"{word} {LETTERS[part]} {len(order)} 1 @ {len(order)} 0 {places}  \n")
    return "".join(rows)
