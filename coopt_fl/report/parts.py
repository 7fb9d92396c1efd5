"""Parts of the report: a value, or one sentence on why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from coopt_fl.core.errors import CooptError

T = TypeVar("T")


class LeftOut(Exception):  # noqa: N818 - no error: the report goes on without that part
    """Why a part cannot be shown, in one sentence."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of the report.

    Attributes:
        value: what is shown; None where it is left out.
        why: one sentence on that; empty where it is there.
    """

    value: T | None
    why: str = ""

    def there(self) -> T:
        """Return the value, for another part that is made from it.

        Raises:
            LeftOut: there is none, for the same reason.
        """
        if self.value is None:
            raise LeftOut(self.why)
        return self.value


def part(make: Callable[[], T]) -> Part[T]:
    """Return what ``make`` returns, or why it is left out."""
    try:
        return Part(make())
    except (LeftOut, CooptError) as reason:
        sentence = str(reason)
        return Part(None, sentence if sentence.endswith(".") else f"{sentence}.")
