"""Chaos: real processes under kills, freezes, cuts and full disks, and a judge of what became of every accepted job.

Run by ``make chaos`` and ``make chaos-night`` (``python -m tests.chaos``). The service is known by its HTTP interface,
its settings and its signals only. What the promises are, and what was measured: docs/reliability.md.
"""
