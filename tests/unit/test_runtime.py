"""Settings of a process that runs models."""

import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from coopt_fl.core.runtime import channels_last, compute, tensor_cores

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


@pytest.mark.whole
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


def strides(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: value.stride() for name, value in model.state_dict().items()}


def test_weights_have_their_channels_last_as_torch_has_them() -> None:
    """This includes 1x1 kernels, whose strides decide which implementation is used."""

    def model() -> nn.Module:
        made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
        made.register_buffer("images", torch.zeros(2, 3, 4, 4))
        return made

    ours, torchs = model(), model()
    channels_last(ours)
    torchs.to(memory_format=torch.channels_last)
    assert strides(ours) == strides(torchs)


def test_kernels_of_three_dimensions_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, (1, 3, 3)))
    weight = model[1].weight.detach().clone()
    channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model[1].weight, weight) and model[1].weight.is_contiguous()
