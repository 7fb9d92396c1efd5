"""Where and how this process computes: device, threads, determinism."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from coopt_fl.core.errors import ConfigError

BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU flags, any of which means that it multiplies bfloat16 in hardware."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h

_MOST_KEPT = 1 << 30
"""Free bytes at the end of the heap that the process keeps."""


def pick_device() -> torch.device:
    """Return the first GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16() -> bool:
    """Tell whether the CPU multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    return not BFLOAT16.isdisjoint(_cpu_flags())


def instructions() -> str:
    """Return the CPU's instruction sets and its maker, which decide the last bits of a result."""
    facts = _cpu_facts()
    maker = facts.get("vendor_id", facts.get("CPU implementer", ""))  # x86; Arm
    told = [torch.backends.cpu.get_cpu_capability(), "bfloat16" if has_bfloat16() else "", maker]
    return ", ".join(filter(None, told))


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype in which a model multiplies on ``device``.

    Args:
        precision: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU, else float32. On
            a CPU the bits of bfloat16 differ from one instruction set to another, and training
            with it takes many times as long as soon as anything else runs (docs/performance.md).
        device: where the model is.

    Raises:
        ConfigError: the processor lacks the instructions.
    """
    gpu = device.type == "cuda"
    if precision == "auto":
        return torch.bfloat16 if gpu else torch.float32
    if not gpu and precision != "float32" and not (precision == "bfloat16" and has_bfloat16()):
        raise ConfigError(
            f"this CPU has no instructions for {precision}, which would take many times as long: "
            "set the precision to auto or float32"
        )
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags as Linux lists them; none on other systems."""
    facts = _cpu_facts()
    return frozenset(facts.get("flags", facts.get("Features", "")).split())  # x86; Arm


@cache
def _cpu_facts() -> dict[str, str]:
    """Return what Linux says about its last CPU by name; nothing on other systems."""
    with suppress(OSError):
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        return {name.strip(): fact.strip() for name, _, fact in lines}
    return {}


def cpu_name() -> str:
    """Return the CPU's name as Linux or else Python tells it; some tell none."""
    return _cpu_facts().get("model name", platform.processor())


def devices() -> dict[str, str]:
    """Return the processors that a run would use."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.platform(),
        "CPU": cpu_name(),
        "CPU cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "GPUs": ", ".join(gpus) or "none: everything runs on the CPU",
    }


def is_first_process() -> bool:
    """Tell whether this is the first, or only, of the processes that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def compute(threads: int, deterministic: bool = False) -> Iterator[None]:
    """Compute with ``threads`` CPU threads, and with ``deterministic`` kernels alone if it is set.

    The number of threads changes the order of sums and so the last bits of a result. Ray sets it
    by the size of an actor, so it is set here, around every computation that must be repeatable.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if deterministic:  # torch imports its compiler for this, which takes seconds
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before[0])
        if deterministic:
            torch.use_deterministic_algorithms(before[1])


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 matrices as TF32, as torch does in convolutions by default.

    This rounds the factors to 10 bits and is several times as fast. With deterministic kernels,
    and on a CPU, nothing changes.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def channels_last(model: nn.Module) -> None:
    """Keep the 4-D weights and buffers of ``model`` with their channels last, in place.

    ``model.to(memory_format=torch.channels_last)`` fails if a weight is 5-D, as in timm's lambda
    layers.
    """
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.ndim == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.ndim == 4:
                setattr(module, name, buffer.to(memory_format=torch.channels_last))


@cache
def keep_freed_memory() -> None:
    """Make malloc reuse freed memory instead of returning it to the system.

    glibc maps and unmaps large buffers, such as the output of every layer, and the system then
    clears each of their pages anew: a quarter to a half of a forward pass. Use it only in processes
    that run a model: others, such as the platform, would hold on to memory for nothing. Other C
    libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
