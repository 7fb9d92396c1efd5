"""Decisions of a run: made once, stored before they are acted upon, read back on resume.

How to decide is up to the policies (:mod:`coopt_fl.policies`) and the method
(:mod:`coopt_fl.targets.collaborate`); this module applies them to the records of a run.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.combinations import against_consensus
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, DataError, OutputError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.core.remote import shown
from coopt_fl.core.runtime import compute
from coopt_fl.core.words import plural
from coopt_fl.data import Source
from coopt_fl.data.blocks import advised
from coopt_fl.data.partition import is_partitioned
from coopt_fl.data.shards import Layout, open_shards
from coopt_fl.federation.groups import Groups, by_region, groups_of
from coopt_fl.federation.plan import Plan, Size
from coopt_fl.federation.records import Records
from coopt_fl.optimized.licences import RUN, of_source
from coopt_fl.optimized.provenance import Contributor, Provenance, draft
from coopt_fl.optimized.write import publish
from coopt_fl.policies.assignment import AssignmentPolicy, Member, assigned
from coopt_fl.policies.competence import mean_errors
from coopt_fl.policies.reference import Election, ReferencePolicy, elected
from coopt_fl.privacy import count_releases
from coopt_fl.privacy import summary as privacy_summary
from coopt_fl.registry import PARTS
from coopt_fl.targets import CONSENSUS, HeldOut, Recipe, uniformity
from coopt_fl.targets.collaborate import Array

_NEARLY_ALL = 0.9  # share of all blocks above which the audit has too little to compare


class Decisions:
    """The decisions of one run.

    Args:
        config: the run.
        source: the unlabeled data; its images are read here only to form regions.
        records: what earlier attempts at the run have stored.
        progress: receives warnings and progress.
        reference: chooses what everyone aligns to; None: as ``reference`` says.
        assignment: chooses who does what; None: as ``assignment.by`` says.

    Attributes:
        partitioned: whether each sample belongs to one participant.
        by_region: whether blocks are of one region each, and assigned after the alignments.

    Raises:
        ConfigError: both ``assignment`` and a partition are given; the latter fixes all owners.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        records: Records,
        progress: Progress,
        reference: ReferencePolicy | None = None,
        assignment: AssignmentPolicy | None = None,
    ) -> None:
        self.config, self.source, self.records = config, source, records
        self.progress = progress
        self.elect, self.partitioned = reference, is_partitioned(config)
        self.by_region = by_region(config)
        if assignment is not None and self.partitioned:
            raise ConfigError(
                f"assignment.partition={config.assignment.partition} leaves nothing to another "
                "assignment policy; leave one of the two out"
            )
        self.assign: AssignmentPolicy
        self.assign = assignment or PARTS.find("assignment", config.assignment.by).call
        self.recipe = Recipe(**asdict(config.targets), seed=config.seed)

    @cached_property
    def groups(self) -> Groups | None:
        """The groups that no block mixes, see :func:`coopt_fl.federation.groups.groups_of`."""
        total = len(self.source.ids)
        return groups_of(
            self.config,
            self.source,
            lambda done: self.progress.show("regions", done, total, "image"),
        )

    @property
    def random_shards(self) -> bool:
        """Whether a shard is a random sample of all images."""
        return not (self.partitioned or self.by_region)

    def plan(self, present: list[str]) -> Plan:
        """Return the run's plan; if there is none yet, make it for the participants ``present``."""
        if not self.records.planned:
            config, ids = self.config, self.source.ids
            size, members = Size.of(config), self.members(present)
            plan = Plan.make(ids, size, config.seed, members, self.assign, self.groups)
            self.records.make(plan)
        return self.records.plan

    def members(self, names: list[str]) -> list[Member]:
        """Return what an assignment policy may use of each participant."""
        weights = {one.name: one.weight for one in self.config.participants}
        described = [self.records.description(name) or {} for name in names]
        speeds = [float(description.get("rows_per_s", 0.0)) for description in described]
        limit = self.config.assignment.most
        most = math.inf if limit is None else limit
        return [
            Member(name, weights[name], speed, self._errors(name), most)
            for name, speed in zip(names, speeds, strict=True)
        ]

    def reference(self) -> str:
        """Return the run's reference; if there is none yet, elect one by the stored features.

        A reference that is lost before it delivers its projection is replaced by a new election.

        Raises:
            OutputError: the alignment of the reference, to which all others were aligned, is lost.
        """
        records, features = self.records, self.records.features(self.records.active())[1]
        settled = records.state.has_arrays("shared_targets")
        known = records.reference if records.elected else ""
        if settled and known in features and not records.has("alignments", known):
            raise OutputError(
                f"the alignment of {known}, to which all others were aligned, is missing; "
                "give another --out"
            )
        if known and (settled or known in (CONSENSUS, *features)):
            return known
        election = self._election(features)
        for warning in election.warnings:
            self.progress.warn(advised(warning, self.config.data))
        records.elect(election)
        return election.reference

    def shared_targets(self) -> int:
        """Compute and store S_Y* (S, n), to which everyone is aligned, unless stored; return S."""
        records, reference = self.records, self.records.reference
        if (settled := records.shared_targets()) is not None:
            return len(settled[0])
        ids, features = records.features(records.active())
        projection = None if reference == CONSENSUS else records.alignment(reference)
        accepted = records.election.accepted
        with compute(self.config.runtime.threads):
            targets = self.recipe.shared_targets(features, reference, accepted, projection)
        records.state.save_arrays("shared_targets", ids=ids, targets=targets)
        return len(ids)

    def held_out(self, name: str) -> HeldOut | None:
        """Return the cross-validation of a participant's alignment, or None for the reference.

        The platform computes it, once, because a participant must not grade itself.
        """
        if name == self.records.reference:
            return None
        if stored := self.records.state.arrays(f"held_out/{name}"):
            return HeldOut(stored["targets"], float(stored["r2"]))
        with compute(self.config.runtime.threads):
            judged = self.recipe.held_out(name, *self.records.aligning(name))
        self.records.save("held_out", name, **vars(judged))
        return judged

    def assign_blocks(self) -> None:
        """Assign blocks that the plan left open, because errors are known only now."""
        plan, members = self.records.plan, self.members(self.records.active())
        owners = assigned(self.assign, range(len(plan.blocks)), members)
        self.records.assign(plan.with_owners(owners))

    def check_shares(self) -> None:
        """Warn if one of several participants makes so many targets that nobody checks them."""
        plan = self.records.plan
        if self.partitioned or not self.config.audit.fraction or len(self.records.active()) < 2:
            return
        (first, blocks), total = Counter(plan.owners).most_common(1)[0], len(plan.owners)
        if blocks > _NEARLY_ALL * total:
            self.progress.warn(
                f"{plan.contributors[first]} makes {blocks} of {plural(total, 'block')}, so nearly "
                "nobody else checks its targets; if it may not be trusted, see that it gets fewer "
                "(docs/partitions.md)"
            )

    def publish(self) -> Provenance:
        """Publish the optimized dataset from the stored blocks."""
        records, source = self.records, self.source
        plan, total = records.plan, len(source.ids)
        provenance = draft(
            config=self.config,
            source={
                "name": source.name,
                "fingerprint": source.fingerprint,
                "rows": total,
                "licenses": of_source(self.config.data),
            },
            contributors=[self._contributor(name) for name in plan.contributors],
            reference=records.reference,
            plan_changes=[asdict(change) for change in plan.changes],
            audit=records.state.record("audit", dict[str, Any]) or {},
            privacy=self._privacy(),
        )
        return publish(
            records.state.dataset,
            provenance,
            [len(block) for block in plan.blocks],
            records.state.block,
            lambda rows: self.progress.show("fuse", rows, total, "row"),
        )

    def _errors(self, name: str) -> NDArray[np.float64] | None:
        """Return the error to expect of a participant's targets of each block, if that is known.

        It is the mean squared error of its held-out targets of shared samples of the same region.
        """
        records = self.records
        if not (self.by_region and records.state.has_arrays("shared_targets")):
            return None
        if name != records.reference and not records.has("held_out", name):
            return None
        wanted, judged = records.aligned_to(name)[1], self.held_out(name)
        wrong = np.square(judged.targets - wanted).sum(axis=1) if judged else np.zeros(len(wanted))
        of_block = self.regions[0]
        return mean_errors(wrong, self.regions_of_shared(name), int(of_block.max()) + 1)[of_block]

    @cached_property
    def regions(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The regions of blocks and shared samples, which no change of the plan changes."""
        return self.records.plan.numbered_regions()

    def regions_of_shared(self, name: str) -> NDArray[np.intp]:
        """Return the region of each shared sample (S,) that a participant is aligned on."""
        ids = self.records.aligned_to(name)[0]
        found: NDArray[np.intp] = self.regions[1][np.searchsorted(self.records.plan.shared, ids)]
        return found

    def _election(self, features: Mapping[str, Array]) -> Election:
        config, wanted = self.config, self._wanted()
        elect: ReferencePolicy = self.elect or PARTS.find("reference", wanted).call
        try:
            with compute(config.runtime.threads):
                outcome = elect(features, wanted, self.recipe.dim, config.seed)
            return elected(outcome, features)
        except ParticipantError as error:
            raise ParticipantError(advised(str(error), config.data)) from error

    def _wanted(self) -> str:
        """Return the configured reference, or "best" if other settings rule out a consensus."""
        against = against_consensus(self.config.targets)
        if self.config.reference != CONSENSUS or not against:
            return self.config.reference
        self.progress.warn(
            f"no consensus is possible with {' and '.join(against)}: the best prior is the "
            "reference"
        )
        return "best"

    def _contributor(self, name: str) -> Contributor:
        """Return the provenance of ``name``, which may have been lost before it was aligned."""
        records = self.records
        described, aligned = records.description(name), records.has("alignments", name)
        if described is None:
            raise ParticipantError(f"{name} has not described itself; run the same command again")
        judged = self.held_out(name) if aligned else None
        spread = records.election.uniformity.get(name)
        if spread is None and records.has("features", name):  # it joined after the election
            spread = uniformity(records.features([name])[1][name])
        return Contributor(
            name=name,
            prior=described["prior"],
            weights_sha256=described["weights_sha256"],
            alignment_sha256=records.alignment(name).sha256 if aligned else "",
            uniformity=spread,
            r2_heldout=judged.r2 if judged else 1.0 if aligned else None,
            licenses=described.get("licenses", {}) | self._stated_licence(name),
        )

    def _stated_licence(self, name: str) -> dict[str, str]:
        """Return the licence of a participant's prior that the configuration states."""
        said = {one.name: one.license for one in self.config.participants}.get(name)
        return {RUN: said} if said else {}

    def _privacy(self) -> dict[str, Any] | None:
        """Return how often images were released, and what that may reveal; None without privacy."""
        if self.config.privacy.clip is None:
            return None
        records, plan, rows = self.records, self.records.plan, self.recipe.rows_to_project
        uploads = list(plan.units)
        uploads += [plan.units[index] for change in plan.changes for index in change.blocks]
        uploads += [plan.shared for _ in records.represented()]
        uploads += [plan.projected_ids(blocks, rows) for blocks in records.projections(rows)]
        return privacy_summary(self.config.privacy, count_releases(self.source.ids, uploads))


def shards_sum(decisions: Decisions) -> str:
    """Return the sha256 of the manifest of ``data.shards``; "" where there are none.

    Raises:
        DataError: they cannot be opened, or were made of other data, blocks or seed.
    """
    config, source, url = decisions.config, decisions.source, decisions.config.data.shards
    if url is None:
        return ""
    shards, layout = open_shards(url), layout_of(config, source.ids, decisions.groups)
    there = (shards.manifest.ids_sha256, shards.manifest.blocks)
    same_ids = there == (layout.digest(), len(layout.units))
    if shards.fingerprint != source.fingerprint or not same_ids:
        what = "blocks, assignment, shared set or seed" if not same_ids else "data"
        raise DataError(
            f"the shards at {shown(url)} are of other {what} than this run: run `coopt "
            "publish-shards` with the same configuration and another --out"
        )
    return shards.manifest_sha256


def layout_of(config: Config, ids: NDArray[np.int64], groups: Groups | None) -> Layout:
    """Return which ids each file of published shards must have for this run."""
    size = Size.of(config)
    _, units, shared = size.cut(ids, config.seed, groups)
    return Layout(units, shared, size.block_rows, size.audit, size.owners(groups))
