"""Measurements of the service as it ships: ``python -m bench`` (or ``make bench``).

Every figure comes from a run on this machine, never from a table. Torch is used only where it is installed, as the
baseline that the bundle is compared with; nothing else in here needs it.
"""
