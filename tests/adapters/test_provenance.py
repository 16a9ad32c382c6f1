"""What a model from a folder tells of itself: two of one name are never taken for each other."""

import shutil

import pytest

from rasa.adapters.grounding_dino import load_grounding_dino
from rasa.adapters.omdet_turbo import load_omdet_turbo
from rasa.adapters.owlv2 import load_owlv2
from rasa.adapters.sam import load_sam
from rasa.adapters.sam2 import load_sam2
from rasa.adapters.sam3 import load_sam3, load_sam3_segmenter
from tests.adapters.tiny import save_tiny_grounding_dino, save_tiny_omdet_turbo, save_tiny_owlv2
from tests.adapters.tiny_sam import save_tiny_sam, save_tiny_sam2, save_tiny_sam3, save_tiny_sam3_video

MODELS = {
    "grounding-dino": (save_tiny_grounding_dino, load_grounding_dino),
    "owlv2": (save_tiny_owlv2, load_owlv2),
    "omdet-turbo": (save_tiny_omdet_turbo, load_omdet_turbo),
    "sam": (save_tiny_sam, load_sam),
    "sam2": (save_tiny_sam2, load_sam2),
    "sam3": (save_tiny_sam3, load_sam3),
    "sam3-segmenter": (save_tiny_sam3_video, load_sam3_segmenter),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_settings_of_a_folder_tell_models_apart(name, tmp_path):
    save, load = MODELS[name]
    for seed in (0, 1):
        (tmp_path / str(seed) / "model").mkdir(parents=True)
        save(tmp_path / str(seed) / "model", seed=seed)
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    shutil.copytree(tmp_path / "0", tmp_path / "changed")
    config = tmp_path / "changed" / "model" / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    one, other, copy, changed = (load(tmp_path / place / "model").describe() for place in ("0", "1", "copy", "changed"))
    assert one == copy
    assert len({one["sha256"], other["sha256"], changed["sha256"]}) == 3
    assert {key for key in one if one[key] != other[key]} == {"sha256"}
