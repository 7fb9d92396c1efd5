"""The Flower strategy. Its modules lie here in a wheel, and at the top level in a checkout."""

from pathlib import Path

if not Path(__file__).with_name("platform.py").exists():
    __path__.append(str(Path(__file__).parents[2] / "strategies"))
