"""Imports of a participant's process, which a deployment starts anew for each message."""

import subprocess
import sys

HEAVY = {"lightning", "pyarrow.dataset", "ray", "scipy", "sklearn", "timm", "torchvision"}
"""Each takes nearly as long as torch itself, or longer, and only some messages need it."""


def test_a_participant_imports_what_its_work_needs_and_no_more() -> None:
    code = "import sys, coopt_fl.federation.client_app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
