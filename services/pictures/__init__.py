"""Uploaded bytes in, a clean picture out: headers judged here, pixels decoded in a child that can do nothing else."""
