"""Experiments: tables and figures measured with the library, and results with provenance."""

from importlib.util import find_spec

from coopt_fl.core.extras import install_hint

if find_spec("matplotlib") is None:
    raise SystemExit(f"error: the figures need matplotlib: {install_hint('report')}")
