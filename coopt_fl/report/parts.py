"""Parts of the report: a value, or one sentence that says why it is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from coopt_fl.core.errors import CooptError

T = TypeVar("T")


class LeftOut(Exception):  # noqa: N818 - no error: the report goes on without that part
    """Raised, with one sentence as the reason, if a part cannot be shown."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of the report.

    Attributes:
        value: the content; None if the part is left out.
        why: one sentence with the reason; empty if there is a value.
    """

    value: T | None
    why: str = ""

    def there(self) -> T:
        """Return the value, to make another part from it.

        Raises:
            LeftOut: the part was left out; the reason is the same.
        """
        if self.value is None:
            raise LeftOut(self.why)
        return self.value


def part(make: Callable[[], T]) -> Part[T]:
    """Return the result of ``make``, or the reason why it is left out."""
    try:
        return Part(make())
    except (LeftOut, CooptError) as reason:
        sentence = str(reason)
        return Part(None, sentence if sentence.endswith(".") else f"{sentence}.")
