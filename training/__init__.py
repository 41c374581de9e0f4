"""The model as made: the only package that may import torch; it imports `model`, never `services`, `worker` or
`cli`."""
