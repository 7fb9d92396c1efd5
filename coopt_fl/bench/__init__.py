"""Speed as ratios to a roofline that is measured in the same run, in turn: ``coopt bench``.

Machines differ and are noisy, so no time here is compared with one of another machine: every
benchmark measures its own roofline together with what it is about, and yields a row for each ratio.
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
"""Benchmarks in the order of the table: name of the function, and its module."""
