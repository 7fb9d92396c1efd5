"""Three tiers of tests by folder: which test is of which, and how long each may take."""

import time
from pathlib import Path

import pytest

BUDGETS = {"fast": 90, "whole": 180, "e2e": 420}
"""Seconds of each tier on two idle cores, with nothing beside it; see docs/testing.md."""

FOLDERS = {"unit": "fast", "cases": "fast", "flower": "whole", "e2e": "e2e"}
BEGUN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let who runs other tests at the same time say how long all may take together."""
    parser.addoption("--budget", type=int, metavar="SECONDS", help="instead of the tiers' own")


def pytest_configure(config: pytest.Config) -> None:
    """Take the time; a budget has everything in it that comes after."""
    config.stash[BEGUN] = time.monotonic()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier: its folder's, unless it says another."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        own = [mark.name for mark in item.iter_markers() if mark.name in BUDGETS]
        if tier := own[0] if own else FOLDERS.get(folder):
            if tier == "e2e" and folder != "e2e":  # which `make test` runs by its folder
                raise pytest.UsageError(f"{item.nodeid}: what is e2e belongs into tests/e2e")
            item.add_marker(tier)
            item.user_properties.append(("tier", tier))  # which a report has, of any process


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what the tests took, and what their tiers may take."""
    reports = [one for kind in terminalreporter.stats.values() for one in kind]
    ran = [one for one in reports if isinstance(one, pytest.TestReport) and one.when == "call"]
    if not (
        tiers := {str(told) for one in ran for name, told in one.user_properties if name == "tier"}
    ):
        return
    seconds = time.monotonic() - config.stash[BEGUN]
    budget = config.getoption("--budget") or sum(BUDGETS[tier] for tier in tiers)
    over = "OVER BUDGET: " if seconds > budget else ""
    terminalreporter.write_line(
        f"{over}{' and '.join(sorted(tiers))}, {len(ran)} tests: "
        f"{seconds:.0f} s of at most {budget} s on two idle cores",
        yellow=bool(over),
    )
