"""Write sam_hq_tiny.npz and .json: what segment-anything-hq 0.3 answers with formula-made weights.

Run in an environment that has it (its pins need not be met), with the repository's root as the working folder:
``python -m tests.adapters.golden.sam_hq.make``.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from segment_anything_hq.modeling import ImageEncoderViT, MaskDecoderHQ, PromptEncoder, Sam, TwoWayTransformer

from tests.adapters.reference import fill, sam_weight, sine_image

SEED, SIDE = 31, 128
IMAGE = (96, 128, 3, 2, 4)
BOXES = ((10, 20, 60, 90), (0, 0, 128, 96), (30, 30, 31, 50))


def build() -> Sam:
    """Three layers, one of which sees the whole image; windows that need padding."""
    encoder = ImageEncoderViT(
        img_size=SIDE, patch_size=16, embed_dim=48, depth=3, num_heads=3, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1,), out_chans=32, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(8, 8), input_image_size=(SIDE, SIDE), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=8, mlp_dim=64)
    decoder = MaskDecoderHQ(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=32, vit_dim=48)
    return Sam(encoder, prompts, decoder).eval()


def main() -> None:
    """Fill the model, run it both ways, and write both files beside this one."""
    model = build()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(fill(shapes, sam_weight, SEED), strict=True)
    pixels = torch.from_numpy(sine_image(IMAGE)).permute(2, 0, 1).float()  # its longer side is SIDE already
    boxes = torch.tensor(BOXES, dtype=torch.float32)
    arrays = {"seed": np.array(SEED), "image": np.array(IMAGE), "boxes": boxes.numpy()}
    with torch.inference_mode():
        embedding, early = model.image_encoder(model.preprocess(pixels)[None])
        sparse, dense = model.prompt_encoder(points=None, boxes=boxes, masks=None)
        for kind in ("single", "best"):
            logits, quality = model.mask_decoder(
                image_embeddings=embedding,
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=kind == "best",
                hq_token_only=False,
                interm_embeddings=early,
            )
            arrays |= {f"low_res_{kind}": logits[:, 0].numpy(), f"iou_{kind}": quality[:, 0].numpy()}
    folder = Path(__file__).parent
    np.savez_compressed(folder / "sam_hq_tiny.npz", **arrays)
    keys = {name: list(shape) for name, shape in shapes.items()}
    (folder / "sam_hq_tiny.json").write_text(json.dumps(keys, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
