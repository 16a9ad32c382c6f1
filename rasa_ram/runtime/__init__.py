"""Faster ways to run a model; each is an extra of its own and fits where the model fits.

``rasa_ram.runtime.openvino`` runs on CPUs: float32 with the logits of PyTorch, or int8. Nothing else pays there: Swin-L
under ``torch.compile`` and ONNX Runtime took 0.95 to 1.05 times the time of eager PyTorch on one core (torch 2.15,
onnxruntime 1.31), bfloat16 0.9 times. On CUDA load the model with ``dtype="bfloat16"`` or ``"float16"`` instead.
"""
