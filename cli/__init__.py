"""The ``animato`` command: the top of the house. Speaks through services, worker and model; never imports training."""
