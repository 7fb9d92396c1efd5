"""What a participant's process imports: in a deployment each message starts one."""

import subprocess
import sys

HEAVY = {"lightning", "pyarrow.dataset", "ray", "scipy", "sklearn", "timm", "torchvision"}
"""Each takes a good part of what torch itself takes, or more, and only some work needs it."""


def test_a_participant_imports_what_its_work_needs_and_no_more() -> None:
    code = "import sys, coopt_fl.federation.client_app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
