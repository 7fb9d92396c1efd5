"""What a fault changes about the plan: blocks whose owner was lost or rejected go to others."""

from dataclasses import replace
from typing import Any

from coopt_fl.core.errors import CooptError, ParticipantError
from coopt_fl.federation.decisions import Decisions
from coopt_fl.federation.plan import Change

from .exchange import AGAIN
from .membership import Membership


class Handover:
    """Has others take over, and stores who before anybody is asked."""

    def __init__(self, decisions: Decisions, members: Membership) -> None:
        self.decisions, self.members = decisions, members
        self.records, self.progress = decisions.records, decisions.progress

    def possible(self, name: str) -> bool:
        """Whether enough others are here to go on without ``name``."""
        return len(self._heirs(name)) >= self.members.fewest()

    def give_up(self, name: str, reason: CooptError) -> None:
        """Have others do what ``name`` has left, if enough are here.

        Raises:
            CooptError: the ``reason``, if too few are here.
        """
        heirs = self._heirs(name)
        if not self.possible(name):
            raise type(reason)(
                f"participant {name}: {reason}. Start it again, or set min_participants to "
                f"{max(len(heirs), 1)} or less to have others take over its blocks"
            )
        stored = self.records.state.has_unit
        blocks = [index for index in self.records.plan.blocks_of(name) if not stored(index)]
        self._move(Change(name, blocks, [], str(reason), {}), heirs)

    def reject(self, name: str, reason: CooptError, evidence: dict[str, Any]) -> None:
        """Use nothing of ``name``, now and in what it has delivered.

        Raises:
            CooptError: the ``reason``, if nobody else is here.
        """
        if not self._heirs(name):
            raise type(reason)(
                f"participant {name}: {reason}; nobody else is here to take over; {AGAIN}"
            )
        self.records.reject(name, str(reason), evidence)
        self.members.reject(name, reason)
        self._free(name)

    def finish_rejections(self) -> None:
        """Finish reassignments that an interrupted run recorded."""
        for name in self.records.rejected:
            if self.records.plan.blocks_of(name):
                self._free(name)

    def _free(self, name: str) -> None:
        verdict = self.records.rejected[name]
        blocks = self.records.plan.blocks_of(name)
        for index in blocks:
            self.records.state.remove_block(index)
        change = Change(name, blocks, [], verdict["reason"], verdict["evidence"], rejected=True)
        self._move(change, self._heirs(name))

    def _heirs(self, name: str) -> list[str]:
        return [other for other in self.members.fit() if other != name]

    def _move(self, change: Change, heirs: list[str]) -> None:
        """Store ``change`` with new owners among ``heirs``."""
        name, blocks = change.origin, change.blocks
        if blocks and not heirs:
            raise ParticipantError(f"nobody is here to take over from {name}; {AGAIN}")
        owners = self.decisions.assign(blocks, self.decisions.members(heirs)) if blocks else []
        self.records.change(replace(change, owners=owners))
        self.progress.warn(
            f"participant {name}: {'rejected: ' if change.rejected else ''}{change.reason}; "
            f"{len(blocks)} blocks go to {', '.join(dict.fromkeys(owners)) or 'nobody'}"
        )
