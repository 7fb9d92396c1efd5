"""Partitions that fix which samples each participant gets, instead of the assignment.

For studies of skew, labels may decide which participant makes the target of a sample; they never
influence the target.
"""

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import AssignmentConfig, Config
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.labels import open_labels
from coopt_fl.data.source import LABEL, Source

Ids = NDArray[np.int64]
Places = NDArray[np.intp]
"""The index of each sample's participant in the roster, (N,)."""

SHOWN = 5


def is_partitioned(config: Config) -> bool:
    """Tell whether each sample belongs to one participant, and no other may be asked about it."""
    return config.assignment.partition != AssignmentConfig().partition


def partition(config: Config, source: Source) -> dict[str, Ids] | None:
    """Return the ids of each participant, ascending, in the order of the roster.

    None: any participant may get any sample.

    Raises:
        DataError: there are no labels, or no such column, or it cannot be read.
        ConfigError: the column's values cannot be distributed among the participants.
    """
    if not is_partitioned(config):
        return None
    kind, _, what = config.assignment.partition.partition(":")
    names = [participant.name for participant in config.participants]
    weights = np.array([participant.weight for participant in config.participants])
    if kind == "dirichlet":
        seed = derive_seed(config.seed, "partition")
        owners = drawn(_classes(config), float(what), weights, seed)
    else:
        values = source.column(what)
        if values is None and what == LABEL:
            values = _classes(config).astype(np.str_)
        if values is None:
            raise DataError(
                f"data.source={config.data.source} has no column {what!r}; choose one that it has"
            )
        owners = given(values, names, weights, f"assignment.partition=column:{what}")
    return {name: source.ids[owners == place] for place, name in enumerate(names)}


def drawn(classes: Ids, alpha: float, weights: NDArray[np.float64], seed: int) -> Places:
    """Distribute each class at random, with shares drawn from a Dirichlet distribution.

    The method of Yurochkin et al. (2019, arXiv 1905.12022). Each participant's concentration is
    ``alpha`` times its weight over the mean weight, so that expected shares are proportional to the
    weights. Images without a label are a class of their own.

    Args:
        classes: (N,), -1 for images without a label.
        alpha: small for few participants per class, large for equal shares.
        weights: of the participants, above 0.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    owners = np.empty(len(classes), np.intp)
    sizes = np.unique(classes, return_counts=True)[1]
    for of_class in np.split(np.argsort(classes, kind="stable"), np.cumsum(sizes)[:-1]):
        shares = rng.dirichlet(alpha * weights / weights.mean())
        ends = np.rint(np.cumsum(shares) * len(of_class)).astype(int)[:-1]
        for place, rows in enumerate(np.split(rng.permutation(of_class), ends)):
            owners[rows] = place
    return owners


def given(
    values: NDArray[np.str_], names: list[str], weights: NDArray[np.float64], setting: str
) -> Places:
    """Distribute samples among participants in whole groups of equal values.

    If the values are participants' names, each group goes to the one of that name. Otherwise groups
    are assigned by descending size, each to the participant with the least load per weight.

    Args:
        values: (N,).
        names: of the participants.
        weights: of the participants, above 0.
        setting: the setting that asked for this, for errors.

    Raises:
        ConfigError: values and names agree only in part; there are fewer groups than participants;
            or weights differ although the values are names.
    """
    groups, group_of, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if not {*groups.tolist()}.isdisjoint(names):
        owner_of = _by_name(groups.tolist(), names, setting)
        if len(np.unique(weights)) > 1:
            raise ConfigError(
                f"{setting}: weights have no meaning where the values are the participants' names; "
                "leave them out"
            )
        return owner_of[group_of]
    if len(groups) < len(names):
        raise ConfigError(
            f"{setting}: {len(names)} participants cannot share {len(groups)} groups of equal "
            f"values; list at most {len(groups)} participants, or choose another column"
        )
    load, owner_of = np.zeros(len(names)), np.empty(len(groups), np.intp)
    for group in np.argsort(-sizes, kind="stable"):
        owner_of[group] = place = int(np.argmin((load + sizes[group]) / weights))
        load[place] += sizes[group]
    return owner_of[group_of]


def explained(config: Config, parts: dict[str, Ids]) -> str:
    """Return a sentence on each participant's number of samples, and what a partition implies."""
    shares = ", ".join(f"{name} {len(ids):,}" for name, ids in parts.items())
    return (
        f"assignment.partition={config.assignment.partition} (samples: {shares}): outside the "
        "shared set nobody is asked about another's samples, so the audit compares each "
        "participant only with itself, and nobody takes over from another (docs/partitions.md)"
    )


def _classes(config: Config) -> Ids:
    """Return the class of each sample, (N,), -1 for none."""
    classes = open_labels(config.data, "train")
    if classes is None:
        raise DataError(
            f"assignment.partition={config.assignment.partition} needs labels, and the train "
            "images have none; choose iid, or column:NAME with a column that they have"
        )
    return classes


def _by_name(groups: list[str], names: list[str], setting: str) -> Places:
    """Return the index in ``names`` of each group's value."""
    strange = [repr(value) for value in groups if value not in names]
    absent = [name for name in names if name not in groups]
    if strange or absent:
        problems = [f"no participant is called {_some(strange)}"] if strange else []
        problems += [f"no sample has the value {_some(absent)}"] if absent else []
        raise ConfigError(
            f"{setting}: if one value is a participant's name, all must be, and each name must be "
            "a value; " + ", and ".join(problems)
        )
    return np.array([names.index(value) for value in groups])


def _some(names: list[str]) -> str:
    """Return the first names as text, and the number of others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
