"""``coopt bench``: speed as ratios to a roofline that is measured in the same run.

Machines differ and are noisy, so times are never compared between machines: every benchmark
measures its code alternately with its own roofline, and yields a row for each ratio.
"""

MODULES = {
    "optimize": "optimization",
    "handwritten": "handwritten",
    "alignment": "stages",
    "student": "student",
    "rival": "rival",
    "precision": "precision",
    "probe": "probing",
    "overlap": "overlap",
    "sharing": "optimization",
    "fusion": "stages",
    "startup": "startup",
    "imports": "startup",
    "transport": "transport",
}
"""Benchmarks in the order of the table: name of the function -> its module."""
