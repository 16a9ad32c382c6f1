"""Tiny models of the true architectures with seeded random weights, and the folders that adapters load them from.

Each ``tiny_x()`` is a transformers model in eval mode; each ``save_tiny_x(folder)`` writes the folder that a hub
repository of that family has: config.json, model.safetensors, the processor's settings and the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    OmDetTurboConfig,
    OmDetTurboForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    PreTrainedModel,
    SwinConfig,
)

# The words of the vocabulary; everything else is spelt with letters, as BERT's own does with words it does not know.
WORDS = """
    a an the of on in and with red green blue black white yellow brown small large wooden
    cat dog sofa tree car sky run beach lamp cup bus person man woman child face hand hair hat shirt shoe bag
    fire hydrant hot cold water glass bottle table chair desk bed window door wall floor roof house building street
    road bridge train truck bicycle motorcycle boat ship plane bird horse sheep cow bear zebra elephant giraffe
    fruit apple banana orange cake bread pizza food plate bowl fork knife spoon flower plant grass leaf mountain
    river lake sea sand snow sun cloud star light fish ball kite racket skate board surf ##board ##s ##es ##ing
    stop sign traffic phone computer key keyboard mouse screen television book paper pen clock vase teddy toy
""".split()  # noqa: SIM905
_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
# transformers and the original look for these ids, not for these signs.
_STOPS = {".": 1012, "?": 1029}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_SIGNS = "!\"#$%&'()*+,-/:;<=>@[\\]^_`{|}~"
VOCABULARY_SIZE = 1400

Model = TypeVar("Model", bound=PreTrainedModel)


def tiny_vocabulary() -> dict[str, int]:
    """A WordPiece vocabulary with real words, whose special tokens and stops have the ids of bert-base-uncased."""
    taken = {**_SPECIAL, **_STOPS}
    tokens = [*_SIGNS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *dict.fromkeys(WORDS)]
    free = (index for index in range(999, VOCABULARY_SIZE) if index not in taken.values())
    vocabulary = taken | dict(zip(tokens, free, strict=False))
    used = set(vocabulary.values())
    return vocabulary | {f"[unused{index}]": index for index in range(VOCABULARY_SIZE) if index not in used}


def save_tiny_vocabulary(folder: Path) -> Path:
    """Write ``vocab.txt``, one token a line, and return its path."""
    vocabulary = tiny_vocabulary()
    path = folder / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    return path


def tiny_grounding_dino(*, seed: int = 0, queries: int = 20) -> GroundingDinoForObjectDetection:
    """Grounding DINO of two layers each, 64 channels, and the usual limit of 256 text tokens."""
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=512,
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=64,  # two channels to a group of the norm, which one pixel alone must survive
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=queries,
        max_text_len=256,
    )
    return seeded(lambda: GroundingDinoForObjectDetection(config), seed)


def save_tiny_grounding_dino(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder: images of 64 to 96 pixels, tokenizer with the tiny vocabulary."""
    tiny_grounding_dino(seed=seed).save_pretrained(folder)
    save_tiny_vocabulary(folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "GroundingDinoImageProcessor",
            "size": {"shortest_edge": 64, "longest_edge": 96},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    )
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return folder


def tiny_owlv2(*, seed: int = 0) -> Owlv2ForObjectDetection:
    """OWLv2 on images of 64 pixels and texts of 32 tokens, two layers each."""
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**clip_ends(), **layers, "max_position_embeddings": 32}
    vision = {**layers, "image_size": 64, "patch_size": 8}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    model = seeded(lambda: Owlv2ForObjectDetection(config), seed)
    for parameter in (*model.class_head.parameters(), *model.box_head.parameters()):
        parameter.data *= 0.3  # else every score is a half and every box lies in a corner
    return model


def save_tiny_owlv2(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder, with CLIP's tokenizer of single bytes (no merges)."""
    tiny_owlv2(seed=seed).save_pretrained(folder)
    write_clip_tokenizer(folder, length=32)
    settings = {
        "image_processor_type": "Owlv2ImageProcessor",
        "size": {"height": 64, "width": 64},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def tiny_omdet_turbo(*, seed: int = 0) -> OmDetTurboForObjectDetection:
    """OmDet-Turbo on images of 64 pixels with ten queries, two layers each."""
    # Another width than the decoder's: with equal widths transformers 5.23 lacks a projection that it then calls.
    layers = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "clip_text_model", **clip_ends(), **layers, "max_position_embeddings": 77}
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    config = OmDetTurboConfig(
        text_config=text,
        backbone_config=backbone,
        # Those norms are for the published backbone, timm's, whose channels come last.
        apply_layernorm_after_vision_backbone=False,
        image_size=64,
        text_projection_in_dim=48,
        text_projection_out_dim=48,
        class_embed_dim=48,
        task_encoder_hidden_dim=64,
        num_queries=10,
        encoder_in_channels=[32, 64, 128],
        encoder_hidden_dim=32,
        encoder_attention_heads=2,
        encoder_dim_feedforward=64,
        vision_features_channels=[32, 32, 32],
        decoder_hidden_dim=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=64,
    )
    return seeded(lambda: OmDetTurboForObjectDetection(config), seed)


def save_tiny_omdet_turbo(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder, with CLIP's tokenizer of single bytes (no merges)."""
    tiny_omdet_turbo(seed=seed).save_pretrained(folder)
    write_clip_tokenizer(folder, length=77)
    settings = {
        "image_processor_type": "DetrImageProcessor",
        "size": {"height": 64, "width": 64},
        "do_rescale": False,
        "do_pad": False,
        "image_mean": [123.675, 116.28, 103.53],
        "image_std": [58.395, 57.12, 57.375],
    }
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def clip_ends() -> dict[str, int]:
    """Settings of a CLIP text encoder that follow from its vocabulary."""
    size = len(clip_vocabulary())
    return {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}


def write_clip_tokenizer(folder: Path, *, length: int) -> None:
    """Write CLIP's tokenizer of single bytes (no merges)."""
    write_json(folder / "vocab.json", clip_vocabulary())
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": length})


def clip_vocabulary() -> dict[str, int]:
    """Bytes, bytes that end a word, and the two ends of a text."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    # Bytes that cannot be printed are written as the characters from U+0100 on, as CLIP's and GPT-2's tokenizers do.
    letters = [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(256 - len(printable))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def seeded(build: Callable[[], Model], seed: int) -> Model:
    """The model with random weights that tell inputs apart, in eval mode; global random numbers stay as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for name, parameter in model.named_parameters():
            # The start values are so small, some of them zero, that every query and every pixel would answer alike.
            if parameter.ndim >= 2:
                parameter.data = parameter.data * 2 if parameter.any() else torch.randn_like(parameter) / 20
            elif name.endswith("iou_prediction_head.proj_out.bias"):
                parameter.data += 0.5
    return model.eval()


def write_json(path: Path, value: object) -> None:
    """Write a value as a JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")
