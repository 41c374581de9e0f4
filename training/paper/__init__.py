"""The paper's method as published: parts, losses, training stage, animation and ONNX graph of `PaperMotion`.

For real checkpoints (StyleGAN2, an e4e encoder, CLIP) it is the default recipe; on a rendered domain's parts it is what
our own motion is compared with. Must not import: services, worker, cli.
"""
