"""The ``coopt`` command line."""
