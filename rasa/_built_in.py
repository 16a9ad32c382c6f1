"""The models that come with rasa.

Parameters were counted on the networks themselves, made on torch's meta device; a test counts them again.
"""

from __future__ import annotations

from rasa._model import Model, WeightFolder

_RAM_PACKAGES = ("torch", "timm", "safetensors", "huggingface_hub")
_RAM_FALLBACKS = {"ram-tags-chinese": "no Chinese names of the tags"}
_DINO_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub")
_SAM_PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub")
_SAM3_FOLDER = WeightFolder(
    "sam3.sa-co",
    license="SAM License (custom, 2025-11-19)",
    access="accept the licence on the hub's page of facebook/sam3, log in with `hf auth login`, then `hf download "
    "facebook/sam3 --exclude sam3.pt --local-dir FOLDER`",
)

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

_RAM = (
    Model(
        name="ram-swin-l.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_ram_tagger",
        summary="RAM: 4585 tags, or any others by name, with a threshold for each",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("ram-swin-l.14m", "ram-tags", "ram-tag-thresholds"),
        fallbacks=_RAM_FALLBACKS,
        parameters=469_148_785,
        keeps_copy=True,
    ),
    Model(
        name="ram-plus-swin-l.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_ram_plus_tagger",
        summary="RAM++: 4585 tags, or any others by name or description",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("ram-plus-swin-l.14m", "ram-tags", "ram-tag-thresholds"),
        fallbacks=_RAM_FALLBACKS,
        parameters=329_493_046,
        keeps_copy=True,
    ),
    Model(
        name="tag2text-swin-b.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_tag2text_tagger",
        summary="Tag2Text: 3429 tags, smaller and older than RAM",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("tag2text-swin-b.14m", "tag2text-tags"),
        parameters=372_007_193,
        keeps_copy=True,
    ),
)

_GROUNDING_DINO = (
    Model(
        name="grounding-dino-swin-t.ogc",
        role="detector",
        builder="rasa.adapters.grounding_dino.loading:build_swin_t",
        summary="Grounding DINO, Swin-T, the original file: boxes for any tags",
        extra="dino",
        packages=_DINO_PACKAGES,
        checkpoints=("grounding-dino-swin-t.ogc", "bert-base-uncased.vocab"),
        parameters=172_250_626,
    ),
    Model(
        name="grounding-dino-swin-b.cogcoor",
        role="detector",
        builder="rasa.adapters.grounding_dino.loading:build_swin_b",
        summary="Grounding DINO, Swin-B, trained on more data, the original file",
        extra="dino",
        packages=_DINO_PACKAGES,
        checkpoints=("grounding-dino-swin-b.cogcoor", "bert-base-uncased.vocab"),
        parameters=232_315_264,
    ),
    Model(
        name="grounding-dino-tiny.ogc",
        role="detector",
        builder="rasa.adapters.grounding_dino.loading:build_tiny",
        summary="Grounding DINO, Swin-T, as the hub has it (safetensors)",
        extra="dino",
        packages=_DINO_PACKAGES,
        checkpoints=("grounding-dino-tiny.ogc", "bert-base-uncased.vocab"),
        parameters=172_250_626,
    ),
    Model(
        name="grounding-dino-base.cogcoor",
        role="detector",
        builder="rasa.adapters.grounding_dino.loading:build_base",
        summary="Grounding DINO, Swin-B, as the hub has it (safetensors)",
        extra="dino",
        packages=_DINO_PACKAGES,
        checkpoints=("grounding-dino-base.cogcoor", "bert-base-uncased.vocab"),
        parameters=232_315_264,
    ),
)

_SAM = (
    Model(
        name="sam-vit-b.sa1b",
        role="segmenter",
        builder="rasa.adapters.sam.loading:build_sam_vit_b",
        summary="Segment Anything, ViT-B: the smallest of the first generation",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam-vit-b.sa1b",),
        parameters=93_735_728,
    ),
    Model(
        name="sam-vit-l.sa1b",
        role="segmenter",
        builder="rasa.adapters.sam.loading:build_sam_vit_l",
        summary="Segment Anything, ViT-L",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam-vit-l.sa1b",),
        parameters=312_343_088,
    ),
    Model(
        name="sam-vit-h.sa1b",
        role="segmenter",
        builder="rasa.adapters.sam.loading:build_sam_vit_h",
        summary="Segment Anything, ViT-H: the largest of the first generation",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam-vit-h.sa1b",),
        parameters=641_090_864,
    ),
    Model(
        name="sam-hq-vit-h.hq44k",
        role="segmenter",
        builder="rasa.adapters.sam.loading:build_sam_hq_vit_h",
        summary="HQ-SAM, ViT-H: finer borders",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam-hq-vit-h.hq44k",),
        parameters=642_161_968,
    ),
    Model(
        name="sam2.1-hiera-t.sav",
        role="segmenter",
        builder="rasa.adapters.sam2.loading:build_sam2_t",
        summary="Segment Anything 2.1, Hiera tiny, on still images",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam2.1-hiera-t.sav",),
        parameters=31_440_721,
    ),
    Model(
        name="sam2.1-hiera-s.sav",
        role="segmenter",
        builder="rasa.adapters.sam2.loading:build_sam2_s",
        summary="Segment Anything 2.1, Hiera small, on still images",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam2.1-hiera-s.sav",),
        parameters=38_538_577,
    ),
    Model(
        name="sam2.1-hiera-b-plus.sav",
        role="segmenter",
        builder="rasa.adapters.sam2.loading:build_sam2_b_plus",
        summary="Segment Anything 2.1, Hiera base-plus, on still images",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam2.1-hiera-b-plus.sav",),
        parameters=73_328_401,
    ),
    Model(
        name="sam2.1-hiera-l.sav",
        role="segmenter",
        builder="rasa.adapters.sam2.loading:build_sam2_l",
        summary="Segment Anything 2.1, Hiera large, on still images",
        extra="sam",
        packages=_SAM_PACKAGES,
        checkpoints=("sam2.1-hiera-l.sav",),
        parameters=216_924_865,
    ),
    Model(
        name="sam3.sa-co",
        role="detector-segmenter",
        builder="rasa.adapters.sam3.loading:build_sam3",
        summary="Segment Anything 3: boxes and masks for any tags in one go; gated, own licence",
        extra="sam",
        packages=_SAM_PACKAGES,
        parameters=840_376_374,
        folder=_SAM3_FOLDER,
    ),
    Model(
        name="sam3-segmenter.sa-co",
        role="segmenter",
        builder="rasa.adapters.sam3.loading:build_sam3_segmenter",
        summary="Segment Anything 3, masks from boxes; gated, own licence",
        extra="sam",
        packages=_SAM_PACKAGES,
        parameters=458_260_369,
        folder=_SAM3_FOLDER,
    ),
)

BUILT_IN = (*_LITE, *_RAM, *_GROUNDING_DINO, *_SAM)
