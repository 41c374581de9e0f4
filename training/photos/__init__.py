"""From an image folder to a served bundle: the chain of stages for pictures whose factors nobody knows.

captions (what the folder says about its pictures) → run (stages in order) → parts (what the motion stands on) → graphs
and bundle (export). Must not import: services, worker, cli.
"""
