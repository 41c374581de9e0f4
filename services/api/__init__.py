"""The HTTP API: accepts, validates, answers. Imports no worker, no inference runtime and nothing of training."""
