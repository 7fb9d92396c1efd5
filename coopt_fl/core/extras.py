"""What to install where a package of an optional feature is missing.

CoOpt-FL is on no package index, so ``pip install 'coopt-fl[report]'`` would not find it: what an
extra brings is named instead.
"""

import shlex
from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "coopt-fl"


def install_hint(extra: str) -> str:
    """Return the command that installs the packages of ``extra``, ready to be pasted.

    They are read from the metadata of the installed distribution; where there is none, as in a
    checkout that was only put on the path, the command is the one for a checkout.
    """
    try:
        listed = map(Requirement, metadata.requires(DISTRIBUTION) or ())
    except metadata.PackageNotFoundError:
        return f"pip install -e '.[{extra}]' in a checkout of {DISTRIBUTION}"
    needed = [shlex.quote(_plain(one)) for one in listed if _is_of(one, extra)]
    return " ".join(["pip install", *needed])


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Whether ``extra`` brings the requirement, and nothing else does."""
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
