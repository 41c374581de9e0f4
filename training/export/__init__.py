"""Torch → ONNX bundle, with parity: every graph is run in ONNX Runtime and compared with PyTorch before it is
written."""
