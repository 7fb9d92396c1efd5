"""What an audit knows of each participant, worked out beside the platform's event loop."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt_fl.federation.decisions import Decisions
from coopt_fl.policies.audit import Answer, AuditPolicy, Judgement, Known
from coopt_fl.policies.evidence import Expected
from coopt_fl.privacy import Guard
from coopt_fl.targets.collaborate import Array, apply


class Inspection:
    """Gives an audit policy what it needs, from the records of a run.

    What a participant's targets have to be like takes a cross-validation of its alignment, which is
    done in a thread: nobody is asked for targets before that is known.
    """

    def __init__(self, decisions: Decisions, policy: AuditPolicy) -> None:
        self.decisions, self.policy = decisions, policy
        self.records = decisions.records
        self._pool = ThreadPoolExecutor(1, "audit")
        self._known: dict[str, Future[tuple[Known, Expected]]] = {}

    def ready(self, name: str) -> bool:
        """Whether it is known what the targets of ``name`` have to be like; begins to find out."""
        begun = self._begun(name)
        if begun.done():
            begun.result()  # raises what went wrong
        return begun.done()

    def close(self) -> None:
        """Wait for what is still worked out."""
        self._pool.shutdown(cancel_futures=True)

    def known(self, name: str) -> tuple[Known, Expected]:
        """Return what ``name`` has said, and what its targets have to be like; waits for it."""
        return self._begun(name).result()

    def judge(self) -> Judgement:
        """Have it decided whom to believe, and store what the provenance says of it."""
        answers = self._answers()
        names = sorted({name for one in answers for name in (one.owner, one.auditor)})
        expected = {name: self.known(name)[1] for name in names}
        judgement = self.policy.judge(expected, answers)
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
        """The ids that are asked for with another block, too, ascending."""
        plan = self.records.plan
        return np.unique(np.concatenate([plan.audit_ids(k) for k in range(len(plan.blocks))]))

    @cached_property
    def projected(self) -> set[int]:
        """The blocks on which a projection was fitted, whoever optimizes them now."""
        rows = self.decisions.recipe.rows_to_project
        return {index for blocks in self.records.projections(rows) for index in blocks}

    def _begun(self, name: str) -> Future[tuple[Known, Expected]]:
        if name not in self._known:
            self._known[name] = self._pool.submit(self._work_out, name)
        return self._known[name]

    def _work_out(self, name: str) -> tuple[Known, Expected]:
        """Return what a participant has said of the shared set, and what follows of its targets."""
        records = self.records
        alignment, judged = records.alignment(name), self.decisions.held_out(name)
        ids, features = records.features([name])
        known = Known(ids, apply(alignment, features[name]))
        fitted = apply(alignment, records.aligning(name)[0])
        heldout, r2 = (judged.targets, judged.r2) if judged else (fitted, 1.0)
        return known, Expected(fitted, self._released(name, heldout), r2)

    def _released(self, name: str, targets: Array) -> Array:
        """Return targets as they would come: with privacy, clipped and with noise of their own."""
        privacy = self.decisions.config.privacy
        if privacy.clip is None:
            return targets
        guard = Guard(privacy.clip, privacy.noise_multiplier, b"")
        return guard.release(targets, np.arange(len(targets)), "expected", name)

    def _answers(self) -> list[Answer]:
        """Return what was said of every audited sample, by block and unit."""
        plan, state = self.records.plan, self.records.state
        owners = [plan.contributors[owner] for owner in plan.owners]
        rows = [state.audit_rows(index) for index in range(len(plan.blocks))]
        homes = {
            id: index
            for index, ids in enumerate(plan.blocks)
            for id in ids[np.isin(ids, self.audited)].tolist()
        }
        return [
            Answer(
                owner=owners[homes[id]],
                block=homes[id],
                auditor=owners[unit],
                unit=unit,
                ours=rows[homes[id]].get(id),
                theirs=rows[unit].get(id),
            )
            for unit in range(len(owners))
            for id in plan.audit_ids(unit).tolist()
        ]
