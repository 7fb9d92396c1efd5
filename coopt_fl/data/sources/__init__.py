"""One module per kind of source: ``images(data, split)`` and ``labels(data, split)``."""
