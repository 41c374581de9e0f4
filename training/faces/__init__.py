"""Rendered faces: factors, expressions, captions and one module a domain. No torch here: pictures are made with skia
alone."""
