"""One module per scheme of a prior's spec, each with ``load`` and ``check``."""
