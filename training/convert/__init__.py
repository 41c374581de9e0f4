"""Checkpoints that people have, as a bundle: `animato-train convert`.

sources (files → networks, and what is missing) → fitting (do they belong together) → bundle (export and card); command
is the command line. Formats are `training.checkpoints`' business. Must not import: services, worker, cli.
"""
