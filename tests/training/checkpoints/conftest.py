from tests.training.checkpoints.published_stylegan2 import nvidia_modules

__all__ = ["nvidia_modules"]
