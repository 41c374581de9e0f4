"""The comparison of a bundle with its rivals: same faces, sentences, seeds and numbers of frames, one report.

It runs the bundle's ONNX graphs and reads the frames with the evaluator's factor reader; no training stage may import
it, nor does it train anything.
"""

from training.compare.comparison import run

__all__ = ["run"]
