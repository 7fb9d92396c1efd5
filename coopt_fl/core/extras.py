"""Which packages to install for an optional feature.

CoOpt-FL is not on a package index, so ``pip install 'coopt-fl[report]'`` would fail: the hint lists
the packages of the extra instead.
"""

import shlex
from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "coopt-fl"


def install_hint(extra: str) -> str:
    """Return the command that installs the packages of ``extra``, ready to be pasted.

    They are read from the metadata of the installed distribution. A checkout that is only on
    Python's path has none: then the command installs the checkout with the extra.
    """
    try:
        listed = map(Requirement, metadata.requires(DISTRIBUTION) or ())
    except metadata.PackageNotFoundError:
        return f"pip install -e '.[{extra}]' in a checkout of {DISTRIBUTION}"
    needed = [shlex.quote(_plain(one)) for one in listed if _is_of(one, extra)]
    return " ".join(["pip install", *needed])


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Tell whether ``extra`` adds the requirement to those of the plain package."""
    marker = requirement.marker
    return (
        marker is not None
        and marker.evaluate({"extra": extra})
        and not marker.evaluate({"extra": ""})
    )


def _plain(requirement: Requirement) -> str:
    """Return the requirement without its marker."""
    requirement.marker = None
    return str(requirement)
