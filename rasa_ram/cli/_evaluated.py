"""What ``rasa-ram evaluate --model`` can name: taggers, baselines, and any model that rasa knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasa.errors import InputError
from rasa_ram.published import PUBLISHED

if TYPE_CHECKING:
    from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
    from rasa_ram.evaluation.harness import Predictor
    from rasa_ram.tagger import RamTagger
    from rasa_ram.vocabulary import Vocabulary

BASELINES = ("clip", "blip-itc", "blip-itm", "ml-decoder", "caption")
# Models that leave out what is unlikely are asked to leave out as little as they can.
_LOW = 0.01


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model and how it is asked.

    Attributes:
        model: A published model of RAM's family, a file or folder of one, one of :data:`BASELINES`, or a model of rasa.
        weights: File or folder of a baseline's weights; None takes the published ones.
        vocabulary: Of a file or folder, and the class names of ML-Decoder.
        open_set: Whether RAM or RAM++ is asked for all classes as unseen ones.
        descriptions: Classes to sentences, for CLIP and RAM++.
        threshold: For precision and recall: a number, ``"published"`` or ``"by-tag"``.
        top_k: Classes of an image that BLIP matches.
        device: As torch names it.
        dtype: Of RAM's family.
    """

    model: str
    weights: Path | None = None
    vocabulary: Path | None = None
    open_set: bool = False
    descriptions: Mapping[str, Sequence[str]] | None = None
    threshold: float | Literal["published", "by-tag"] = "published"
    top_k: int = 64
    device: str = "cpu"
    dtype: str = "float32"


def build_predictor(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    """Load the model for the classes of the benchmark.

    Raises:
        RasaError: What loading raises; InputError if an option does not fit the model.
    """
    in_family = choice.model in PUBLISHED or Path(choice.model).exists()
    if choice.open_set and not in_family:
        raise InputError(f"--open-set is about RAM and RAM++; {choice.model} takes any words as it is")
    if choice.weights is not None and choice.model not in BASELINES:
        raise InputError(f"--weights is about the baselines {', '.join(BASELINES)}; give --model the file or folder")
    if in_family:
        return _ram(choice, benchmark)
    if choice.model in BASELINES:
        return _baseline(choice, benchmark)
    return _of_rasa(choice, benchmark)


def _ram(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    from rasa_ram.evaluation.predictors.taggers import RamPredictor

    name = choice.model if choice.model in PUBLISHED else Path(choice.model).name
    return RamPredictor(
        _tagger(choice),
        benchmark,
        name=name,
        open_set=choice.open_set,
        threshold=choice.threshold,
        descriptions=choice.descriptions,
    )


def _tagger(choice: ModelChoice) -> RamTagger:
    from rasa_ram.tagger import load_tagger

    # Nothing is denied: a benchmark may ask for what the authors take out of the output.
    return load_tagger(choice.model, _vocabulary(choice), device=choice.device, dtype=choice.dtype, deny=())


def _vocabulary(choice: ModelChoice) -> Vocabulary | None:
    from rasa_ram.vocabulary_files import read_vocabulary

    return None if choice.vocabulary is None else read_vocabulary(choice.vocabulary, allow_repeats=True)


def _baseline(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    if choice.model == "clip":
        from rasa_ram.evaluation.predictors.clip import load_clip

        return load_clip(benchmark, choice.weights, descriptions=choice.descriptions, device=choice.device)
    if choice.model in {"blip-itc", "blip-itm"}:
        from rasa_ram.evaluation.predictors.blip import PUBLISHED as PUBLISHED_BLIP
        from rasa_ram.evaluation.predictors.blip import load_blip

        mode: Any = choice.model.removeprefix("blip-")
        source = choice.weights or PUBLISHED_BLIP
        return load_blip(benchmark, source, mode=mode, top_k=choice.top_k, device=choice.device)
    if choice.model == "caption":
        return _captioner(choice, benchmark)
    return _ml_decoder(choice, benchmark)


def _captioner(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    from rasa_ram.captioner import load_captioner
    from rasa_ram.evaluation.predictors.captions import CaptionPredictor

    captioner = load_captioner(choice.weights or "tag2text-swin-b.14m", device=choice.device, dtype=choice.dtype)
    return CaptionPredictor(captioner, benchmark, name="tag2text-captions")


def _ml_decoder(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    from rasa_ram.evaluation.benchmarks.lines import read_names
    from rasa_ram.evaluation.predictors.ml_decoder import MlDecoderPredictor, load_ml_decoder

    if choice.weights is None:
        raise InputError("ml-decoder has no weights to fetch; give --weights with the authors' file")
    model, listed = load_ml_decoder(choice.weights, device=choice.device)
    classes = listed if choice.vocabulary is None else read_names(choice.vocabulary)
    if classes is None:
        raise InputError(f"{choice.weights} does not tell its classes; give --vocabulary with a name per line")
    return MlDecoderPredictor(model, classes, benchmark)


def _of_rasa(choice: ModelChoice, benchmark: Benchmark) -> Predictor:
    from rasa import registry
    from rasa_ram.evaluation.predictors.detector import DetectorPredictor
    from rasa_ram.evaluation.predictors.taggers import TaggerPredictor

    role = registry.find_model(choice.model).role
    thresholds = {"tagger": ("tag_threshold",), "detector": ("box_threshold", "text_threshold")}
    if role not in thresholds:
        raise InputError(f"{choice.model} is a {role}; evaluate a tagger or a detector")
    wanted = {"device": choice.device} | dict.fromkeys(thresholds[role], _LOW)
    options = {key: value for key, value in wanted.items() if registry.takes_option(choice.model, key)}
    model = registry.build(choice.model, **options)
    kind: Any = TaggerPredictor if role == "tagger" else DetectorPredictor
    predictor: Predictor = kind(model, benchmark, name=choice.model)
    return predictor
