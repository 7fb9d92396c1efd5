"""What an audit knows of each participant, computed in a thread beside the event loop."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.lazy import Lazy
from coopt_fl.federation.decisions import Decisions
from coopt_fl.policies.audit import AuditPolicy, Judgement, Known
from coopt_fl.policies.evidence import Expected
from coopt_fl.policies.spreads import Alike
from coopt_fl.privacy import Guard
from coopt_fl.targets.collaborate import CONSENSUS, Array, apply

from .answers import answers

KEPT_BYTES = 256_000_000
"""Size of the cache of what is known of participants; the rest is computed again on use."""


class Inspection:
    """Gives an audit policy what it needs, from the records of a run.

    To know what targets to expect of a participant, its alignment is cross-validated in a thread;
    it is asked for targets only after that.
    """

    def __init__(self, decisions: Decisions, policy: AuditPolicy) -> None:
        self.decisions, self.policy = decisions, policy
        self.records = decisions.records
        self._pool = ThreadPoolExecutor(1, "audit")
        self._begun: dict[str, Future[object]] = {}
        self._known: OrderedDict[str, tuple[Known, Expected]] = OrderedDict()
        self._regions: dict[str, NDArray[np.intp]] = {}

    def ready(self, name: str) -> bool:
        """Whether the targets to expect of ``name`` are known; if not, start computing them."""
        begun = self._judged(name)
        if begun.done():
            begun.result()  # raises what went wrong
        return begun.done()

    def cross_validate(self, names: list[str]) -> None:
        """Cross-validate the alignments of these participants; wait until that is done."""
        for begun in [self._judged(name) for name in names]:
            begun.result()

    def close(self) -> None:
        """Wait for the cross-validation that is running; drop those that have not begun."""
        self._pool.shutdown(cancel_futures=True)

    def known(self, name: str) -> tuple[Known, Expected]:
        """Return what is known and expected of the targets of ``name``; wait until it is."""
        self._judged(name).result()
        if name not in self._known:
            known, expected = self._known[name] = self._work_out(name)
            each = known.targets.nbytes + expected.fitted.nbytes + expected.heldout.nbytes
            while len(self._known) > max(1, KEPT_BYTES // each):
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return self._known[name]

    def judge(self) -> Judgement:
        """Return the policy's judgement, and store what the provenance says of it."""
        plan, dim = self.records.plan, self.decisions.recipe.dim
        with answers(plan, self.audited, self.records.state, dim) as said:
            expected = Lazy(said.names(), lambda name: self.known(name)[1])
            judgement = self.policy.judge(expected, said)
        self.records.state.save_record(
            "audit",
            {
                "fraction": self.decisions.config.audit.fraction,
                "samples": judgement.samples,
                "rejected": sorted({*self.records.rejected, *judgement.rejected}),
                "undecided": list(judgement.undecided),
            },
        )
        return judgement

    @cached_property
    def audited(self) -> NDArray[np.int64]:
        """The ids that are asked for with a second block, too, ascending."""
        plan = self.records.plan
        return np.unique(np.concatenate([plan.audit_ids(k) for k in range(len(plan.blocks))]))

    def alike(self, name: str, index: int, ids: NDArray[np.int64]) -> Alike | None:
        """Return the samples whose spread tells that of a block's payload, or None if none do.

        Args:
            name: the participant.
            index: the block, whoever optimizes it now.
            ids: of the payload's rows.
        """
        if index in self._unlike_shared:
            return None
        if not self.decisions.by_region:
            return Alike.everything(len(ids), len(self.known(name)[1].fitted))
        if name not in self._regions:
            self._regions[name] = self.decisions.regions_of_shared(name)
        alike = self._regions[name] == self.decisions.regions[0][index]
        return Alike.within(ids, self.records.plan.blocks[index], alike)

    @cached_property
    def _unlike_shared(self) -> frozenset[int]:
        """The blocks whose targets are spread otherwise than those of the shared set.

        A partition gave out their samples, or the reference's projection was fitted on one of them,
        or on the shared set.
        """
        records, decisions = self.records, self.decisions
        on_shared = records.reference != CONSENSUS and decisions.by_region
        if decisions.partitioned or on_shared:
            return frozenset(range(len(records.plan.blocks)))
        rows = decisions.recipe.rows_to_project
        return frozenset(index for blocks in records.projections(rows) for index in blocks)

    def _judged(self, name: str) -> Future[object]:
        """Return the future of a participant's cross-validation, which stores its result."""
        if name not in self._begun:
            self._begun[name] = self._pool.submit(self.decisions.held_out, name)
        return self._begun[name]

    def _work_out(self, name: str) -> tuple[Known, Expected]:
        """Return a participant's targets of the shared set, and what to expect of its others."""
        records = self.records
        alignment, judged = records.alignment(name), self.decisions.held_out(name)
        ids, features = records.features([name])
        known = Known(ids, apply(alignment, features[name]))
        fitted = apply(alignment, records.aligning(name)[0])
        heldout, r2 = (judged.targets, judged.r2) if judged else (fitted, 1.0)
        return known, Expected(fitted, self._released(name, heldout), r2)

    def _released(self, name: str, targets: Array) -> Array:
        """Return targets as they would be uploaded: with privacy, clipped and with noise added."""
        privacy = self.decisions.config.privacy
        if privacy.clip is None:
            return targets
        guard = Guard(privacy.clip, privacy.noise_multiplier, b"")
        return guard.release(targets, np.arange(len(targets)), "expected", name)
