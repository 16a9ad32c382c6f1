"""All that a training of the toy RAM needs, in one folder: scenes, vocabulary, first weights and recipe."""

from __future__ import annotations

from pathlib import Path

from rasa_ram.checkpoint import save
from rasa_ram.data.own_tags import TaggedPhoto
from rasa_ram.text_encoder import TextEncoder
from rasa_ram.toy.data import image_path, scene_of, toy_records, write_toy_data, write_toy_images
from rasa_ram.toy.model import draw_toy_model, toy_config
from rasa_ram.toy.words import full_vocabulary, new_tags, toy_vocabulary
from rasa_ram.training.config import load_recipe, write_recipe
from rasa_ram.vocabulary_files import write_vocabulary

# Series of scenes: those of training, those held out, and those to fine-tune on.
TRAINING_SEED, HELD_OUT_SEED, PHOTOS_SEED = 1, 2, 11


def write_toy_folder(
    folder: Path, encoder: TextEncoder, *, scenes: int = 14_000, held_out: int = 2000, seed: int = 0
) -> Path:
    """Draw the toy data set and write it with a recipe that trains on it.

    The folder gets ``images``, ``train.json`` and ``held-out.json`` (published manifests; ids of the latter are those
    of ``full-vocabulary.json``, which has the unseen pairs too), ``vocabulary.json``, ``start`` (a model with fresh
    weights) and ``recipe.toml``.

    Args:
        folder: Made if it is not there.
        encoder: Makes the label vectors.
        scenes: Scenes of training.
        held_out: Scenes of all pairs, for evaluation.
        seed: Of the fresh weights.

    Returns:
        The recipe.

    Raises:
        OutputError: If a file cannot be written.
    """
    own, full = toy_vocabulary(), full_vocabulary()
    manifest = write_toy_data(toy_records(own, scenes, seed=TRAINING_SEED), folder, name="train")
    write_toy_data(toy_records(full, held_out, seed=HELD_OUT_SEED, split="all"), folder, name="held-out")
    write_vocabulary(own, folder / "vocabulary.json")
    write_vocabulary(full, folder / "full-vocabulary.json")
    save(draw_toy_model(toy_config(len(own)), own, encoder, seed=seed), folder / "start", own)
    places = {
        "model.vocabulary": folder / "vocabulary.json",
        "model.init": folder / "start",
        "data.images": folder / "images",
    }
    overrides = [f"{key}={_quoted(path)}" for key, path in places.items()]
    config = load_recipe("toy", [*overrides, f"data.manifests=[{_quoted(manifest)}]"])
    write_recipe(config, folder)
    return folder / "recipe.toml"


def write_new_photos(folder: Path, *, per_tag: int = 20, seed: int = PHOTOS_SEED) -> list[TaggedPhoto]:
    """Draw photos to fine-tune on: ``per_tag`` for each of the 30 new tags, with all of the new tags that they show.

    What else is to be seen on them is not told, as on photos that somebody tagged for a purpose.

    Args:
        folder: Gets the images.
        per_tag: Photos drawn for each tag; one with "maroon star" has "maroon" too, so many tags have more.
        seed: Of the series.

    Raises:
        OutputError: If a file cannot be written.
    """
    paths = [image_path(index, seed=seed, split="new") for index in range(per_tag * len(new_tags()))]
    write_toy_images(paths, folder)
    new = set(new_tags())
    return [TaggedPhoto(path, tuple(tag for tag in scene_of(path).tags if tag in new)) for path in paths]


def _quoted(path: Path) -> str:
    """A path as a TOML string."""
    return '"' + str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"') + '"'
