"""Committed results of ``coopt bench``, and the scale of ImageNet-1K, measured by a program."""
