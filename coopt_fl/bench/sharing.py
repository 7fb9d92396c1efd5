"""Participants at the same time: on one GPU together, or each with a device of its own."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.inputs import pictures
from coopt_fl.bench.optimize import SETTINGS, label, path
from coopt_fl.bench.process import children, serve, together
from coopt_fl.bench.timing import in_turn, spread
from coopt_fl.core.runtime import compute
from coopt_fl.priors import load_prior

REPEATS = 5


@dataclass(frozen=True)
class Crowd:
    """Participants, by the device of each, and what they are measured by."""

    name: str
    setting: str
    devices: tuple[str, ...]
    path: str
    roofline: str
    reach: Reach

    def missing(self) -> str | None:
        """Return why it cannot be measured here."""
        gpus = torch.cuda.device_count()
        if "cpu" in self.devices:
            return "gpu-here" if gpus else None
        if gpus < len(set(self.devices)):
            return "one-gpu" if gpus else "no-gpu"
        return None


CROWDS = (
    Crowd(
        "sharing/four-on-one-gpu",
        "resnet50",
        ("cuda:0",) * 4,
        "four participants sharing one GPU",
        "one participant with all of it",
        Reach(0.9),
    ),
    Crowd(
        "sharing/two-gpus",
        "resnet50",
        ("cuda:0", "cuda:1"),
        "two participants, each with a GPU",
        "one participant with one GPU",
        Reach(1.9),
    ),
    Crowd(
        "sharing/two-cpu-shares",
        "lite0",
        ("cpu", "cpu"),
        "two participants, each with one CPU thread",
        "one participant with one CPU thread",
        Reach(1.8),
    ),
)


def measure() -> Iterator[Row]:
    """Yield a row for each crowd: all its samples/s over those of the first one alone."""
    for crowd in CROWDS:
        setting = SETTINGS[crowd.setting]
        case = Case(crowd.name, f"{crowd.path}, {label(setting)}", crowd.roofline, crowd.reach)
        missing = crowd.missing()
        if missing:
            yield case.skipped(missing)
            continue
        arguments = [(crowd.setting, device) for device in crowd.devices]
        with children("coopt_fl.bench.sharing", arguments) as participants:
            pairs = in_turn(
                lambda: max(together(participants)),
                lambda: together(participants[:1])[0],
                REPEATS,
            )
        count = len(crowd.devices)
        yield case.measured(
            spread(count * alone / slowest for slowest, alone in pairs),
            samples_per_s=spread(count * setting.rows / slowest for slowest, _ in pairs),
            alone_samples_per_s=spread(setting.rows / alone for _, alone in pairs),
        )


def main(name: str, device: str) -> None:
    """Optimize when told to, as one participant."""
    setting = replace(SETTINGS[name], device=device)
    prior = load_prior(setting.prior, device)
    with pictures("array", 1024) as images, compute(1):
        serve(path(prior, images.source, setting))


if __name__ == "__main__":
    main(*sys.argv[1:])
