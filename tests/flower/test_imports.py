"""What a process imports: in a deployment each message starts one."""

import subprocess
import sys

import pytest

HEAVY = {"pyarrow.dataset", "ray", "scipy", "sklearn", "timm", "torchmetrics", "torchvision"}
"""Each takes nearly as long as torch itself, or longer, and only some work needs it."""

TRAINING = """
import sys
from coopt_fl.config.schema import Config
from coopt_fl.students.session import devices_for
with devices_for(Config(), 1):
    print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "import sys, coopt_fl.federation.client_app; print(*sys.modules)",
            HEAVY | {"lightning_fabric"},
        ),
        (TRAINING, HEAVY),
    ],
    ids=["participant", "training"],
)
def test_it_imports_what_its_work_needs_and_no_more(code: str, heavy: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy & set(done.stdout.split()) == set()
