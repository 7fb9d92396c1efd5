"""Flower's programs, a third as patient: whoever died is missed after 20 s instead of 60.

Python imports this when it starts, where PYTHONPATH names this folder. Flower has no setting for
any of it. A heartbeat comes every 10 s instead of every 30, the shortest that a SuperLink takes.
But a process may take 120 s to start instead of 30, which are not enough on a busy host. They also
look for garbage less often, as ``coopt`` does (GARBAGE_EVERY).
"""

import gc
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

SENDS = {"supercore.heartbeat": {"HEARTBEAT_DEFAULT_INTERVAL": 10}}
TASKS = {"HEARTBEAT_DEFAULT_INTERVAL": 120, "HEARTBEAT_PATIENCE": 20 / 120}
"""To start, Flower gives a process the one; between two heartbeats, their product."""

COUNTS = {
    "supercore.corestate.in_memory_corestate": TASKS,
    "supercore.corestate.sql_corestate": TASKS,
}
NODE = {
    "supernode.fleet_http_connection": {"HEARTBEAT_DEFAULT_INTERVAL": 10},
    "supernode.start_client_internal": {  # which looks for messages every 3 s
        "time": SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 1.0)))
    },
}
PROGRAMS = {
    "flower-superlink": COUNTS,
    "flower-supernode": SENDS | COUNTS | NODE,
    "flwr-clientapp": SENDS,
    "flwr-serverapp": SENDS,
}

gc.set_threshold(10_000)
program = Path(sys.orig_argv[1]).name if len(sys.orig_argv) > 1 else ""
for module, values in PROGRAMS.get(program, {}).items():
    theirs = vars(import_module(f"flwr.{module}"))
    if unknown := values.keys() - theirs.keys():  # Python goes on after any other error
        raise SystemExit(f"flwr.{module} has no {', '.join(unknown)}: mend {__file__}")
    theirs.update(values)
