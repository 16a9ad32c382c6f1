"""Faster ways to run a model; each is an extra of its own and fits where the model fits.

``rasa_ram.runtime.openvino`` runs on CPUs: float32 with the logits of PyTorch, or int8. Swin-L under ``torch.compile``
and ONNX Runtime took 0.95 to 1.05 times the time of plain eager PyTorch on one core (torch 2.15, onnxruntime 1.31), so
neither is here. A processor with bfloat16 instructions gains from ``dtype="bfloat16"`` without any of this.
"""
