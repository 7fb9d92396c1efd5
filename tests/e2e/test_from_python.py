"""Programs and notebooks that call coopt_fl.run, as processes of their own."""

import json
import sys
from collections import Counter

import nbformat
from nbclient import NotebookClient

from tests.e2e.conftest import Shell

PROGRAM = '''
import json, logging, os, signal, sys, threading
from pathlib import Path
import numpy as np, torch
import coopt_fl
from coopt_fl.targets.solvers import ridge

LOG = Path(sys.argv[1]) / "unpickled"

class Counting(torch.nn.Module):
    """A prior that writes down where it was pickled and unpickled."""
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.linspace(1, 2, 48))
    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) * self.scale
    def __deepcopy__(self, memo):
        made = Counting()
        made.load_state_dict(self.state_dict())
        return made
    def __getstate__(self):
        note("pickled")
        return self.__dict__
    def __setstate__(self, state):
        self.__dict__.update(state)
        note("unpickled")

def note(what):
    with LOG.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")

@coopt_fl.register.solver("mine")
def mine(source, target, seed):
    return ridge(source, target, seed)

def state():
    ours = ("FLWR_", "RAY_", "PYTHON", "COOPT_")
    environment = {name: value for name, value in os.environ.items() if name.startswith(ours)}
    import flwr.supercore.logger  # which sets the level when it is imported
    return environment, signal.getsignal(signal.SIGINT), logging.getLogger("flwr").level

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (200, 8, 8, 3), np.uint8)
prior = coopt_fl.Prior.from_module(
    Counting(), name="counting", size=8, mean=(.5, .5, .5), std=(.5, .5, .5)
)

def run(out, **changes):
    return coopt_fl.run(
        "digits",
        {"shared.size": 40, "targets.dim": 8, "optimize.block_rows": 10, "optimize.chunk_mb": 0.001,
         "targets.solver": "mine", "student.model": "convnet:2", "student.epochs": 1,
         "simulation.actors": 1, **changes},
        participants=[{"name": "a", "prior": prior}, {"name": "b", "prior": prior},
                      {"name": "c", "prior": "trivial:32"}],
        source=coopt_fl.data.from_arrays(images),
        out=Path(sys.argv[1]) / out,
        progress=None,
    )

if __name__ == "__main__":
    before = state()
    digests = [run("here", **{"simulation.actors": 2}).dataset.digest]
    known = LOG.read_text()
    thread = threading.Thread(target=lambda: digests.append(run("thread").dataset.digest))
    thread.start()
    thread.join()
    after = state()
    print(json.dumps({"digests": digests, "log": known, "same": before == after}))
'''


def test_a_program_s_objects_reach_each_actor_once(shell: Shell) -> None:
    """Twice in one process, the second time from a thread."""
    script = shell.folder / "program.py"
    script.write_text(PROGRAM)
    done = shell.run(sys.executable, str(script), str(shell.folder))
    told = json.loads(done.stdout.splitlines()[-1])
    first, second = told["digests"]
    assert first == second
    assert told["same"], "environment, signals and logging of the caller stay as they were"
    notes = Counter(told["log"].split("\n")[:-1])
    pickled = [note for note in notes if note.startswith("pickled")]
    unpickled = {note: count for note, count in notes.items() if note.startswith("unpickled")}
    assert [notes[note] for note in pickled] == [1], "by the caller, and once"
    assert set(unpickled.values()) == {1}, "once in a process"
    assert 2 <= len(unpickled) <= 3, "the actors, and the caller, which probes it"


CELLS = [
    """
import numpy as np
import torch
import coopt_fl

class Pooled(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

half = (0.5, 0.5, 0.5)
prior = coopt_fl.Prior.from_module(Pooled(), name="pooled", size=8, mean=half, std=half)
""",
    """
@coopt_fl.register.solver("mine")
def mine(source, target, seed):
    weight = np.linalg.lstsq(source, target, rcond=None)[0]
    return weight, target.mean(axis=0) - source.mean(axis=0) @ weight
""",
    """
result = coopt_fl.run(
    "digits",
    {"targets.dim": 8, "targets.solver": "mine", "data.limit": 200, "shared.size": 40,
     "optimize.block_rows": 50, "student.model": "convnet:2", "student.epochs": 1,
     "simulation.actors": 1},
    participants=[{"name": "a", "prior": prior}, {"name": "b", "prior": "trivial:32"}],
    out="notebook",
)
""",
    "result",
    "len(result.dataset), sorted(result.dataset.provenance.plugins)",
]


def test_a_notebook_with_an_own_model_and_solver(shell: Shell) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in CELLS])
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(shell.folder)}}
    ).execute(env=shell.env)
    (table,), (counted,) = ([one["data"] for one in cell.outputs] for cell in notebook.cells[-2:])
    assert "pooled" in table["text/html"]
    assert counted["text/plain"] == "(200, ['solver mine'])"
