"""The Flower ClientApp: a message comes, the participant does its part, a reply goes."""

from collections.abc import Callable
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from coopt_fl.core.errors import CooptError, ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.participant import Participant

app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Answer ``query.describe``."""
    return _answer(message, context, protocol.Describe, Participant.describe)


@app.query("represent")
def represent(message: Message, context: Context) -> Message:
    """Answer ``query.represent``."""
    return _answer(message, context, protocol.Represent, Participant.represent)


@app.train("project")
def project(message: Message, context: Context) -> Message:
    """Answer ``train.project``."""
    return _answer(message, context, protocol.Project, Participant.project)


@app.train("align")
def align(message: Message, context: Context) -> Message:
    """Answer ``train.align``."""
    return _answer(message, context, protocol.Align, Participant.align)


@app.train("optimize")
def optimize(message: Message, context: Context) -> Message:
    """Answer ``train.optimize``."""
    return _answer(message, context, protocol.Optimize, Participant.optimize)


def _answer(
    message: Message, context: Context, kind: type[Any], act: Callable[[Participant, Any], Any]
) -> Message:
    """Decode, act, encode; an error that a user can meet travels back as a record."""
    try:
        request = protocol.decode(kind, message.content)
        participant = identify(context, request.task)
        content = protocol.encode(participant.run(lambda: act(participant, request)))
    except CooptError as error:
        content = protocol.encode_error(error)
    return Message(content, reply_to=message)


def identify(context: Context, task: protocol.Task) -> Participant:
    """Return who this node is: its ``--node-config`` in a deployment, else by its partition.

    Raises:
        ParticipantError: it is nobody in the roster.
    """
    node, priors = context.node_config, dict(task.roster)
    if "name" in node:
        name, partitions = str(node["name"]), 0
        prior = str(node.get("prior") or priors.get(name, ""))
        if not prior:
            raise ParticipantError(f"{name!r} is not in the roster and names no prior of its own")
    else:
        if "partition-id" not in node:
            raise ParticipantError("start its SuperNode with --node-config 'name=\"...\"'")
        partition, partitions = int(node["partition-id"]), int(node["num-partitions"])
        if partition >= len(task.roster):
            raise ParticipantError(
                f"node {partition} is one too many: the roster has {len(priors)}"
            )
        name, prior = task.roster[partition]
    keys = ("data-root", "device", "privacy-secret")
    root, device, secret = (str(node[key]) if key in node else None for key in keys)
    return Participant(name, prior, task, root, partitions, device, secret)
