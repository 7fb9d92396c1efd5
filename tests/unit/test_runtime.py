"""Settings of a process that runs models."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from coopt_fl.core import runtime
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


CPUS = {
    "x86": "vendor_id\t: GenuineIntel\nmodel name\t: Xeon: 2\nflags\t\t: fpu avx512_bf16 sse\n\n",
    "arm": "BogoMIPS\t: 50.00\nFeatures\t: fp bf16\nCPU implementer\t: 0x41\n",
    "old": "vendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nflags\t\t: fpu not_bf16\n",
}


@pytest.fixture
def cpu(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A host whose /proc/cpuinfo is one of ``CPUS``, or is not there."""
    file = tmp_path / "cpuinfo"
    if request.param in CPUS:
        file.write_text("processor\t: 0\n" + CPUS[request.param])
    monkeypatch.setattr(runtime, "Path", lambda _: file)
    monkeypatch.setattr("platform.processor", lambda: "told by Python")
    runtime._cpu_facts.cache_clear()
    yield
    runtime._cpu_facts.cache_clear()


@pytest.mark.parametrize(
    ("cpu", "name", "maker", "bfloat16"),
    [
        ("x86", "Xeon: 2", "GenuineIntel", True),
        ("arm", "told by Python", "0x41", True),
        ("old", "EPYC", "AuthenticAMD", False),
        ("none", "told by Python", "", False),
    ],
    indirect=["cpu"],
)
def test_a_cpu_is_known_by_its_name_its_maker_and_its_instructions(
    cpu: None, name: str, maker: str, bfloat16: bool
) -> None:
    assert (runtime.cpu_name(), runtime.has_bfloat16()) == (name, bfloat16)
    assert runtime.devices()["CPU"] == name
    told = [torch.backends.cpu.get_cpu_capability(), "bfloat16" * bfloat16, maker]
    assert runtime.instructions().split(", ") == [one for one in told if one]


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
