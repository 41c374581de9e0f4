"""`python -m training.adversarial`, and so `torchrun -m training.adversarial`."""

from training.adversarial.command import app

if __name__ == "__main__":
    app()
