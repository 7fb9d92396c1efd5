"""One optimized dataset for every architecture.

``python -m experiments.table3_architectures --scale cpu``
"""

from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each architecture, before and after training, slow enough for all."""
    stages = {"trained": False}, {"trained": True, "lr": 1e-3}
    return [{"model": model} | stage for model in study.models for stage in stages]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train the architecture on the same targets as all others."""
    model, seed = cell["model"], cell["seed"]
    if not cell["trained"]:
        return {"accuracy": lab.random(seed, model=model)}
    return lab.student(lab.collaborate(seed), seed, model=model, lr=cell["lr"])


app = experiment(__name__, settings, measure)
