"""Adversarial training of StyleGAN2 on any pictures: a folder, a zip or a rendered pool.

pictures → order (who is seen when) → stage (losses, augmentation, steps) → snapshots; run puts them together.
Everything random is a function of (seed, step, place in the global batch), so a run can be cut anywhere, shared among
any number of processes and cut into any micro-batches, and still computes the same.
Must not import: skia, services, worker, model.
"""
