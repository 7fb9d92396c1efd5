"""Experiments: tables and figures measured with the library, and results with provenance."""
