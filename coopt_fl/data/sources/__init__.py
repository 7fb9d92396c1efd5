"""One module per kind of source, with ``images(data, split)`` and ``labels(data, split)``."""
