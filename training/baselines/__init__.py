"""What our motion is compared with, runnable on the same parts: StyleCLIP's interpolation and MoCoGAN-HD.

A baseline gives delta_ws for a picture and a sentence, as the paper's motion does; `rivals` opens all of them.
Must not import: services, worker, cli, and nothing of training.evaluator, which judges them.
"""
