"""The published code of SAM with small random weights, and the pictures and boxes that it is asked about."""

from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from rasa.testing import sample_image
from rasa.types import Image
from tests.adapters.reference import fill, load_json, load_npz, sam_weight

HIGH_QUALITY = Path(__file__).parent / "golden" / "sam_hq"
BACKENDS = ("segment-anything", "transformers")
BOXES = np.array([[10, 8, 60, 50], [0, 0, 128, 96], [90, 20, 91, 80]], np.float32)


def original_sam(*, seed: int = 0) -> Sam:
    """The published code's modules: 128 pixels, windows that need padding, one layer without windows."""
    with torch.random.fork_rng():
        encoder = ImageEncoderViT(
            img_size=128, patch_size=16, embed_dim=48, depth=3, num_heads=3, use_rel_pos=True, window_size=3,
            global_attn_indexes=(1,), out_chans=32, norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
        )  # fmt: skip
        prompts = PromptEncoder(
            embed_dim=32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=8, mlp_dim=64)
        decoder = MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=32)
        model = Sam(encoder, prompts, decoder).eval()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        model.load_state_dict(fill(shapes, sam_weight, seed))
        model.mask_decoder.iou_prediction_head.layers[-1].bias.data += 0.5
    return model


def save_high_quality_sam(folder: Path) -> Path:
    """Write the weights that the golden file of SAM-HQ was made with."""
    shapes = {name: tuple(shape) for name, shape in load_json(HIGH_QUALITY / "sam_hq_tiny.json").items()}
    path = folder / "sam_hq_tiny.pth"
    torch.save(fill(shapes, sam_weight, int(load_npz(HIGH_QUALITY / "sam_hq_tiny.npz")["seed"])), path)
    return path


def picture(height: int = 96, width: int = 128, seed: int = 0) -> Image:
    return sample_image(height=height, width=width, seed=seed)
