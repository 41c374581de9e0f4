"""The model bundle: the only contract between training and serving (docs/bundle.md).

Standard library only: the API reads manifests with it, training writes bundles with it. No numpy, no onnxruntime.
"""
