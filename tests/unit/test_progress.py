"""What a log says of a run."""

from rich.console import Console

from coopt_fl.core.progress import Lines


def test_a_log_says_what_a_phase_begins_with() -> None:
    console = Console(width=80)
    progress = Lines(console)
    with console.capture() as capture:
        with progress.phase("describe", "(starting Ray)"):
            pass
        with progress.phase("describe"):
            progress.show("describe", 3, 4, "node")
    assert capture.get().splitlines() == ["describe (starting Ray)", "describe 3/4 nodes"]
