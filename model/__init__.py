"""The model as shipped: a bundle of ONNX graphs run with numpy, onnxruntime and opencv.

Nothing in here imports torch, ``training``, ``services`` or ``worker``. ``model.bundle`` and ``model.errors`` need the
standard library alone, ``model.align`` and ``model.faces`` numpy and opencv, so that the API can read manifests and
find faces without an inference runtime.
"""
