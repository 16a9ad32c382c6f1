"""One photo to tags, boxes, masks and an annotated picture.

python examples/quickstart.py [PHOTO] [FOLDER]
"""

import sys
from pathlib import Path

import PIL.Image

import rasa
from rasa.draw import annotate

PHOTO = Path(__file__).parent / "photos" / "coffee.jpg"


def main(photo: str | Path = PHOTO, folder: str | Path = "out") -> None:
    """Process ``photo`` and write the picture and the result under ``folder``."""
    pipeline = rasa.load("lite")
    image = rasa.to_image(photo)
    result = pipeline(image)

    for tag, score in zip(result.tags.names, result.tags.scores, strict=True):
        print(f"tag     {score:.2f} {tag}")
    found = result.instances
    for label, score, box, mask in zip(found.labels, found.scores, found.boxes, found.masks, strict=True):
        print(f"object  {score:.2f} {label}: box {box.round().astype(int).tolist()}, {mask.sum()} pixels")

    Path(folder).mkdir(parents=True, exist_ok=True)
    picture = Path(folder) / f"{Path(photo).stem}_annotated.png"
    PIL.Image.fromarray(annotate(image, result).pixels).save(picture)
    rasa.write_results(Path(folder) / "quickstart.jsonl", [result])
    print(f"wrote {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
