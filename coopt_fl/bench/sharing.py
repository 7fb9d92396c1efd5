"""Participants at the same time: on one GPU together, or each with a device of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.inputs import pictures
from coopt_fl.bench.optimize import SETTINGS, Setting, label, path
from coopt_fl.bench.process import children, together
from coopt_fl.bench.timing import Seconds, in_turn, not_here, spread
from coopt_fl.core.runtime import compute
from coopt_fl.priors import load_prior

REPEATS = 5
GPU, CPU = SETTINGS["resnet50"], SETTINGS["lite0"]

CROWDS = (
    (
        Case(
            "sharing/four-on-one-gpu",
            f"four participants sharing one GPU, {label(GPU)}",
            "one participant with all of it",
            Reach(0.9),
        ),
        GPU,
        ("cuda:0",) * 4,
    ),
    (
        Case(
            "sharing/two-gpus",
            f"two participants, each with a GPU, {label(GPU)}",
            "one participant with one GPU",
            Reach(1.9),
        ),
        GPU,
        ("cuda:0", "cuda:1"),
    ),
    (
        Case(
            "sharing/two-cpu-shares",
            f"two participants, each with one CPU thread, {label(CPU)}",
            "one participant with one CPU thread",
            Reach(1.8),
        ),
        CPU,
        ("cpu", "cpu"),
    ),
)
"""What is measured, how a prior is used, and the device of each participant."""


def sharing() -> Iterator[Row]:
    """Yield a row for each crowd: all its samples/s over those of the first one alone."""
    for case, setting, devices in CROWDS:
        if reason := not_here(*devices):
            yield case.skipped(reason)
            continue
        work = [partial(_participant, setting, device) for device in devices]
        with children(work) as participants:
            slowest, alone = in_turn(
                lambda: max(together(participants)),
                lambda: together(participants[:1])[0],
                REPEATS,
            )
        yield case.measured(
            spread(len(devices) * alone / slowest),
            samples_per_s=spread(len(devices) * setting.rows / slowest),
            alone_samples_per_s=spread(setting.rows / alone),
        )


@contextmanager
def _participant(setting: Setting, device: str) -> Iterator[Seconds]:
    """Yield the optimization of one participant, in a process of its own."""
    prior = load_prior(setting.prior, device)
    with pictures("array", 1024) as images, compute(1):
        yield path(prior, images.source, replace(setting, device=device))
