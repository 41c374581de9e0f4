"""Before any test differentiates: torch's autograd engine counts its devices once, with the first gradient."""

from tests.training.elsewhere import pretend_device

pretend_device.there()
