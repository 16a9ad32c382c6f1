"""Make sam2_small.npz and sam2_small.json with the original package: see README.md."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sam2.build_sam import build_sam2
from sam2.utils.transforms import SAM2Transforms

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2].parent))

from rasa._torch.loading import without_init  # noqa: E402  (of this checkout)
from tests.adapters.reference import fill, sam_weight, sine_image  # noqa: E402  (of this checkout)

SIDE, SEED, IMAGE = 128, 7, (90, 120, 3, 2, 4)
BOXES = [[10.0, 12.0, 70.0, 60.0], [0.0, 0.0, 120.0, 90.0], [55.5, 30.25, 110.0, 85.75]]
# The published architecture with fewer channels and blocks.
SMALL = [
    f"model.image_size={SIDE}",
    "model.image_encoder.trunk.embed_dim=16",
    "model.image_encoder.trunk.stages=[1,1,2,1]",
    "model.image_encoder.trunk.global_att_blocks=[3]",
    "+model.image_encoder.trunk.window_spec=[8,4,4,2]",
    "model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "model.image_encoder.neck.d_model=32",
]


def build() -> torch.nn.Module:
    """The original model with weights made by the rule of tests/adapters/reference.py, in float64."""
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu", hydra_overrides_extra=SMALL)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    (HERE / "sam2_small.json").write_text(json.dumps(shapes, indent=0) + "\n", encoding="utf-8")
    model.load_state_dict(fill(shapes, sam_weight, SEED), strict=True)
    model = model.double()
    model.sam_prompt_encoder.pe_layer.float()  # it casts coordinates to float32 itself
    return model


@torch.no_grad()
def main() -> None:
    """Run the steps of SAM2ImagePredictor, whose sizes are fixed at 1024, in float64."""
    model, transforms = build(), SAM2Transforms(SIDE, 0.0)
    image = sine_image(IMAGE)
    pixels = transforms(image)[None]
    _, features, _, _ = model._prepare_backbone_features(model.forward_image(pixels.double()))
    features[-1] = features[-1] + model.no_mem_embed
    sizes = [(SIDE // stride, SIDE // stride) for stride in (4, 8, 16)]
    maps = [level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(features, sizes, strict=True)]
    boxes = transforms.transform_boxes(torch.tensor(BOXES), normalize=True, orig_hw=image.shape[:2]).double()
    sparse, dense = model.sam_prompt_encoder(
        points=(boxes, torch.tensor([[2, 3]] * len(BOXES))), boxes=None, masks=None
    )
    found = {"pixels": pixels[:, :, ::5, ::3].numpy(), "embedding": maps[-1].numpy()}
    for name, multimask in (("single", False), ("best", True)):
        logits, iou, _, _ = model.sam_mask_decoder(
            image_embeddings=maps[-1],
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=True,
            high_res_features=maps[:-1],
        )
        masks = transforms.postprocess_masks(logits, image.shape[:2]) > 0
        found |= {f"logits_{name}": logits.numpy(), f"iou_{name}": iou.numpy(), f"masks_{name}": np.packbits(masks)}
    facts = {"side": SIDE, "seed": SEED, "image": IMAGE, "boxes": BOXES}
    np.savez_compressed(HERE / "sam2_small.npz", **found, **{key: np.array(value) for key, value in facts.items()})


def write_published_keys() -> None:
    """Write the keys and shapes of the four published sizes."""
    sizes = {"t": "t", "s": "s", "b-plus": "b+", "l": "l"}
    shapes = {}
    for size, name in sizes.items():
        with without_init():
            model = build_sam2(f"configs/sam2.1/sam2.1_hiera_{name}.yaml", device="cpu")
        shapes[size] = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    text = json.dumps(shapes).encode()
    (HERE / "published_keys.json.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
    write_published_keys()
