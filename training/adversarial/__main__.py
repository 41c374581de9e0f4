"""`python -m training.adversarial`, and so `torchrun -m training.adversarial`."""

import typer

from training.adversarial.command import gan

if __name__ == "__main__":
    typer.run(gan)
