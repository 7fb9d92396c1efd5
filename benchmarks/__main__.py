"""``python -m benchmarks [NAME]... [--out FILE]``: each as a ratio to a roofline of the same run.

Machines differ and are noisy, so no number here is compared with one of another run: every
benchmark measures its own roofline, in turn with what it is about, and reports the ratio.
"""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import alignment, optimization, scale, startup, transport
from coopt_fl.optimized.provenance import versions

BENCHMARKS = {
    "optimization": optimization.measure,
    "alignment": alignment.measure,
    "transport": transport.measure,
    "startup": startup.measure,
    "scale-simulation": scale.simulation,
    "scale-deployment": scale.deployment,
    "scale-out-of-band": scale.deployment_out_of_band,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(BENCHMARKS)}.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
) -> None:
    """Measure and print; `--out` keeps the numbers with where they come from."""
    results: dict[str, Any] = {
        "command": "python -m benchmarks " + " ".join(names or []),
        "date": date.today().isoformat(),
        "hardware": _hardware(),
        "versions": versions(),
        "results": {},
    }
    for name in names or BENCHMARKS:
        results["results"][name] = found = BENCHMARKS[name]()
        print(name, json.dumps(found, indent=1), flush=True)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"machine": platform.machine(), "cores": os.cpu_count(), "gpus": gpus}


if __name__ == "__main__":
    typer.run(main)
