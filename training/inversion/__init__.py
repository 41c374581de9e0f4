"""Inversion of pictures into ws through a frozen generator: an e4e-style encoder, and refinement a picture.

parts (what a generator gives) → losses → stage (training of the encoder) → refinement and figures; run puts them
together. Works on rendered generators and on adversarially trained ones alike.
Must not import: services, worker, model.
"""
