"""Sending weights instead of targets: Flower's FedAvg of a self-supervised student."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from matplotlib.axes import Axes

from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core.seeding import derive_seed
from coopt_fl.federation.plan import Plan, Size
from coopt_fl.policies.assignment import Member, Proportional
from coopt_fl.students.loop import Training
from coopt_fl.students.objectives import find_objective
from coopt_fl.students.session import devices_for
from experiments.agreement import Rows
from experiments.costs import MB, blocks_for, traffic
from experiments.figures import Known, label, panel
from experiments.grid import Weighing
from experiments.lab import Lab, Made
from experiments.scales import Study
from experiments.table import Cell, table

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OBJECTIVE = "simclr"


class Local(Training):
    """The training of one participant, which gets weights, trains them and returns them.

    The optimizer's state is reset in every round, because a participant keeps nothing between
    messages. The learning rate follows the schedule of the whole training.
    """

    def __init__(self, fabric: Fabric, lab: Lab, rows: Rows, config: StudentConfig, seed: int):
        nothing = np.zeros((len(rows), 1), np.float32)
        shard = lab.dataset(Made(rows, nothing, np.zeros(len(rows), np.int16), []))
        super().__init__(fabric, shard, lab.source, config, lab.study.data.on_error, seed)
        self.images = len(rows)
        self._new = deepcopy(self._optimizer.state_dict())

    @property
    def weights(self) -> ArrayRecord:
        """The weights and batch norm statistics as a Flower record."""
        return ArrayRecord(dict(self._objective.state_dict()))

    def take(self, weights: ArrayRecord, like: Local | None = None) -> None:
        """Load weights, reset the optimizer, and take over the normalisation of ``like``."""
        self._objective.load_state_dict(weights.to_torch_state_dict())
        self._optimizer.load_state_dict(self._new)
        self._preprocess = like._preprocess if like else self._preprocess


@dataclass
class Spent:
    """Seconds that participants trained, one after another: wall clock and CPU time."""

    wall: float = 0.0
    cpu: float = 0.0


def participant(everyone: list[Local], whole: Local, epochs: int, spent: Spent) -> ClientApp:
    """Return the app that trains a participant's student for ``epochs`` epochs per round."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        mine = everyone[int(context.node_config["partition-id"])]
        done = (int(str(message.content.config_records["config"]["server-round"])) - 1) * epochs
        wall, cpu = time.perf_counter(), time.process_time()
        mine.take(message.content.array_records["arrays"], whole)
        for number in range(done, done + epochs):
            mine.epoch(number)
        spent.wall += time.perf_counter() - wall
        spent.cpu += time.process_time() - cpu
        counted = MetricRecord({"num-examples": mine.images})
        return Message(RecordDict({"arrays": mine.weights, "metrics": counted}), reply_to=message)

    return app


def federated(lab: Lab, participants: int, epochs: int, seed: int) -> Cell:
    """Train by FedAvg with ``epochs`` local epochs per round, and return the curve.

    Shards are those of a run with the same participants; the total of epochs is the study's.
    """
    student = replace(lab.study.student, objective=OBJECTIVE)
    epochs = min(epochs, student.epochs)
    rounds, spent, curve = student.epochs // epochs, Spent(), list[Cell]()
    config = Config(seed, lab.study.data, student=student)
    with devices_for(config, 1, find_objective(OBJECTIVE).staged) as fabric:
        whole = Local(fabric, lab, lab.all, student, seed)
        shards = shards_of(lab, participants, seed)
        seeds = [derive_seed(seed, "fedavg", k) for k in range(participants)]
        each = [
            Local(fabric, lab, rows, student, own) for rows, own in zip(shards, seeds, strict=True)
        ]
        grid = Weighing(participant(each, whole, epochs, spent), participants)

        def probe(number: int, weights: ArrayRecord) -> None:
            done = number * epochs
            if number == rounds or (number and done % lab.study.every < epochs):
                whole.take(weights)
                sent = sum((grid.up + grid.down).values()) / participants / MB
                so_far = {"epoch": done, "seconds": spent.wall, "cpu s": spent.cpu, "MB": sent}
                curve.append(so_far | vars(lab.judge(whole.student)))

        FedAvg(fraction_evaluate=0.0, min_available_nodes=participants).start(
            grid, whole.weights, num_rounds=rounds, evaluate_fn=probe
        )
    return {
        "accuracy": curve[-1]["accuracy"],
        "spread": curve[-1]["spread"],
        "rounds": float(rounds),
        "up each, MB": sum(grid.up.values()) / participants / MB,
        "down each, MB": sum(grid.down.values()) / participants / MB,
        "training s": spent.wall,
        "epoch cpu s": spent.cpu / (rounds * epochs) / torch.get_num_threads(),
        "preparation s, one device": 0.0,
        "curve": curve,
    }


def shards_of(lab: Lab, participants: int, seed: int) -> list[Rows]:
    """Return the rows of each participant in a run of the platform with equal shards."""
    study, members = lab.study, [Member(f"p{k}") for k in range(participants)]
    size = Size(blocks_for(study, len(lab.all), participants), study.audit, study.shared)
    plan = Plan.make(lab.all, size, seed, members, Proportional())
    return [
        np.concatenate([plan.blocks[index] for index in plan.blocks_of(one.name)])
        for one in members
    ]


def by_targets(lab: Lab, participants: int, seed: int) -> Cell:
    """Train on the targets of participants with the study's priors in rotation.

    The traffic is that of the platform's messages, see ``costs``.
    """
    study = replace(lab.study, block_rows=blocks_for(lab.study, len(lab.all), participants))
    crowd = Lab(study)
    crowd.cell = lab.cell
    priors = [study.priors[k % len(study.priors)] for k in range(participants)]
    features = {f"p{k}": crowd.features(spec)[0] for k, spec in enumerate(priors)}
    made = crowd.collaborate(seed, features=features, priors=priors)
    sent = traffic(lab, participants, study.dim, seed).sent
    rounds = sent.messages.total() / participants
    up, down = (sum(way.values()) / participants / MB for way in (sent.up, sent.down))
    found = crowd.student(made, seed, every=study.every)
    found["curve"] = [point | {"MB": up + down} for point in found["curve"]]
    return found | {"up each, MB": up, "down each, MB": down, "rounds": rounds}


LOCAL = (1, 5)
"""Local epochs per round."""


def _rows(study: Study) -> list[Cell]:
    weights = [{"sent": "weights", "epochs a round": e} for e in LOCAL]
    return [
        {"participants": 1, "sent": "nothing"},
        *({"participants": k, "sent": "targets"} for k in study.crowds),
        *({"participants": k} | how for how in weights for k in study.crowds),
    ]


@panel
def over_bytes(axis: Axes, known: Known) -> float:
    """Draw accuracy over a participant's traffic, with one line for each seed."""
    for number, row in enumerate(known["table"]):
        settings = {key: value for key, value in row.items() if not isinstance(value, dict)}
        for cell in known["cells"]:
            if settings.items() <= cell.items() and row["sent"] != "nothing":
                probed = [one for one in cell["curve"] if one["accuracy"] is not None]
                x, y = ([one[key] for one in probed] for key in ("MB", "accuracy"))
                first = cell["seed"] == known["cells"][0]["seed"]
                axis.plot(x, y, ".-", color=f"C{number}", label=label(row) if first else None)
    axis.set(xscale="log", xlabel="MB sent and received by each", ylabel="probe accuracy")
    axis.legend(fontsize=6, frameon=False)
    return 3.8


@table(_rows, over_bytes)
def sending_weights(lab: Lab, cell: Cell) -> Cell:
    """Targets against weights: the same student on the same shards, for the same number of epochs.

    Weights are averaged by Flower's FedAvg after one or five local epochs of SimCLR; if nothing is
    sent, SimCLR sees all images. Seconds are for participants one after another on one device.
    """
    if cell["sent"] == "weights":
        return federated(lab, cell["participants"], cell["epochs a round"], cell["seed"])
    if cell["sent"] == "targets":
        return by_targets(lab, cell["participants"], cell["seed"])
    return lab.student(None, cell["seed"], every=lab.study.every, objective=OBJECTIVE)
