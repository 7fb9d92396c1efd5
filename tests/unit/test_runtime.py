"""What a process that runs models sets."""

import resource
import subprocess
import sys

import pytest
import torch

from coopt_fl.core.runtime import compute, tensor_cores

MEGABYTES = 40
PAGE = resource.getpagesize()

SCRIPT = f"""
import resource, sys, torch
from coopt_fl.core.runtime import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones({MEGABYTES << 20}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEGABYTES * (1 << 20) / PAGE


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"),
    [("cuda", False, "high"), ("cuda", True, "highest"), ("cpu", False, "highest")],
)
def test_a_gpu_multiplies_float32_faster_unless_it_must_be_repeatable(
    device: str, deterministic: bool, expected: str
) -> None:
    with compute(1, deterministic), tensor_cores(torch.device(device)):
        assert torch.get_float32_matmul_precision() == expected
    assert torch.get_float32_matmul_precision() == "highest"
