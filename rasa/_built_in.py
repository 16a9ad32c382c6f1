"""The models that come with rasa.

Parameters were counted on the networks themselves, made on torch's meta device; a test counts them again.
"""

from __future__ import annotations

from rasa._model import Model, Role
from rasa._weight_folders import SAM3

_RAM_PACKAGES = ("torch", "timm", "safetensors", "huggingface_hub")
_RAM_LISTS = ("ram-tags", "ram-tag-thresholds")
_RAM_FALLBACKS = {"ram-tags-chinese": "no Chinese names of the tags"}
_DINO_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub")
_SAM_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub")

_LITE = (
    Model(
        name="lite-tagger",
        role="tagger",
        builder="rasa.adapters.lite.tagger:build_tagger",
        summary="everyday tags: EfficientNet-Lite0 and 2 on sliding windows, ImageNet classes rolled up",
        extra="lite",
        packages=("torch", "cv2"),
        checkpoints=("efficientnet-lite0.in1k",),
        fallbacks={
            "efficientnet-lite2.in1k": "tags come from EfficientNet-Lite0 alone",
            "ssd-mobilenet-v2.coco": "no tags of the detector, such as person",
        },
    ),
    Model(
        name="lite-detector",
        role="detector",
        builder="rasa.adapters.lite.detector:build_detector",
        summary="boxes: SSD-MobileNetV2 for the 80 COCO classes, class maps for other tags",
        extra="lite",
        packages=("torch", "cv2"),
        checkpoints=("efficientnet-lite0.in1k",),
        fallbacks={
            "efficientnet-lite2.in1k": "the second opinion comes from EfficientNet-Lite0 alone",
            "ssd-mobilenet-v2.coco": "boxes come from class maps alone",
            "dinov2-vits14.focus": "boxes of what SSD does not know are rough",
        },
    ),
    Model(
        name="lite-segmenter",
        role="segmenter",
        builder="rasa.adapters.lite.segmenter:build_segmenter",
        summary="masks from boxes: DINOv2 ViT-S/14 with importance decoder, refined by GrabCut",
        extra="lite",
        packages=("torch", "cv2"),
        fallbacks={"dinov2-vits14.focus": "masks come from GrabCut alone"},
    ),
)

_RAM = tuple(
    Model(
        name=name,
        role="tagger",
        builder=f"rasa_ram.tagger:{builder}",
        summary=summary,
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=(name, *lists),
        fallbacks=fallbacks,
        parameters=parameters,
        keeps_copy=True,
    )
    for name, builder, parameters, summary, lists, fallbacks in (
        ("ram-swin-l.14m", "build_ram_tagger", 469_148_785,
         "RAM: 4585 tags, or any others by name, with a threshold for each", _RAM_LISTS, _RAM_FALLBACKS),
        ("ram-plus-swin-l.14m", "build_ram_plus_tagger", 329_493_046,
         "RAM++: 4585 tags, or any others by name or description", _RAM_LISTS, _RAM_FALLBACKS),
        ("tag2text-swin-b.14m", "build_tag2text_tagger", 372_007_193,
         "Tag2Text: 3429 tags, smaller and older than RAM", ("tag2text-tags",), {}),
    )
)  # fmt: skip

_GROUNDING_DINO = tuple(
    Model(
        name=name,
        role="detector",
        builder=f"rasa.adapters.grounding_dino.loading:{builder}",
        summary=f"Grounding DINO, {summary}",
        extra="dino",
        packages=_DINO_PACKAGES,
        checkpoints=(name, "bert-base-uncased.vocab"),
        parameters=parameters,
    )
    for name, builder, parameters, summary in (
        ("grounding-dino-swin-t.ogc", "build_swin_t", 172_250_626, "Swin-T, the original file: boxes for any tags"),
        ("grounding-dino-swin-b.cogcoor", "build_swin_b", 232_315_264,
         "Swin-B, trained on more data, the original file"),
        ("grounding-dino-tiny.ogc", "build_tiny", 172_250_626, "Swin-T, as the hub has it (safetensors)"),
        ("grounding-dino-base.cogcoor", "build_base", 232_315_264, "Swin-B, as the hub has it (safetensors)"),
    )
)  # fmt: skip

_SAM = tuple(
    Model(
        name=name,
        role="segmenter",
        builder=f"rasa.adapters.{builder}",
        summary=summary,
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=(name,),
        parameters=parameters,
    )
    for name, builder, parameters, summary in (
        ("sam-vit-b.sa1b", "sam.loading:build_sam_vit_b", 93_735_728,
         "Segment Anything, ViT-B: the smallest of the first generation"),
        ("sam-vit-l.sa1b", "sam.loading:build_sam_vit_l", 312_343_088, "Segment Anything, ViT-L"),
        ("sam-vit-h.sa1b", "sam.loading:build_sam_vit_h", 641_090_864,
         "Segment Anything, ViT-H: the largest of the first generation"),
        ("sam-hq-vit-h.hq44k", "sam.loading:build_sam_hq_vit_h", 642_161_968, "HQ-SAM, ViT-H: finer borders"),
        ("sam2.1-hiera-t.sav", "sam2.loading:build_sam2_t", 31_440_721,
         "Segment Anything 2.1, Hiera tiny, on still images"),
        ("sam2.1-hiera-s.sav", "sam2.loading:build_sam2_s", 38_538_577,
         "Segment Anything 2.1, Hiera small, on still images"),
        ("sam2.1-hiera-b-plus.sav", "sam2.loading:build_sam2_b_plus", 73_328_401,
         "Segment Anything 2.1, Hiera base-plus, on still images"),
        ("sam2.1-hiera-l.sav", "sam2.loading:build_sam2_l", 216_924_865,
         "Segment Anything 2.1, Hiera large, on still images"),
    )
)  # fmt: skip

_SAM3_ROLES: tuple[tuple[str, Role, str, int, str], ...] = (
    ("sam3.sa-co", "detector-segmenter", "build_sam3", 840_376_374, ": boxes and masks for any tags in one go"),
    ("sam3-segmenter.sa-co", "segmenter", "build_sam3_segmenter", 458_260_369, ", masks from boxes"),
)
_SAM3 = tuple(
    Model(
        name=name,
        role=role,
        builder=f"rasa.adapters.sam3.loading:{builder}",
        summary=f"Segment Anything 3{summary}; gated, own licence",
        extra="sam",
        packages=_SAM_PACKAGES,
        parameters=parameters,
        folder=SAM3,
    )
    for name, role, builder, parameters, summary in _SAM3_ROLES
)

BUILT_IN = (*_LITE, *_RAM, *_GROUNDING_DINO, *_SAM, *_SAM3)
