"""The judge of bundles: a factor reader that no loss ever saw, and the measures made of its readings.

Nothing in here may be imported by a training stage of a bundle; it imports no network of theirs either.
"""
