"""``probe.json`` beside a checkpoint: the accuracies that ``coopt probe`` measured."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coopt_fl.config.schema import DataConfig
from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import file_sha256, write_json

JUDGEMENTS = "probe.json"


@dataclass(frozen=True)
class Judgement:
    """Accuracies of one student on one set of images.

    Attributes:
        data: the ``data`` configuration of the images, as plain values.
        accuracy: accuracies in [0, 1] by name of the classifier; None without labels.
    """

    data: dict[str, Any]
    accuracy: dict[str, float | None]


@dataclass(frozen=True)
class _Stored:
    """Content of the file; ``checkpoint`` is the sha256 of the checkpoint that was judged."""

    checkpoint: str
    judgements: list[Judgement]


def judgements(checkpoint: Path) -> list[Judgement]:
    """Return the stored judgements of ``checkpoint``; none if the file has changed since.

    Raises:
        ConfigError: the file is damaged.
    """
    path = checkpoint.with_name(JUDGEMENTS)
    if not path.is_file():
        return []
    stored = typed.read(path, _Stored, advice="delete it, then run `coopt probe` again")
    return stored.judgements if stored.checkpoint == file_sha256(checkpoint) else []


def keep_judgement(
    checkpoint: Path, data: DataConfig, accuracy: dict[str, float | None]
) -> Path | None:
    """Store a judgement, keeping those on other images.

    Return the file, or None if it cannot be written, as on a read-only disk.
    """
    path, new, others = checkpoint.with_name(JUDGEMENTS), Judgement(asdict(data), accuracy), []
    with suppress(ConfigError):  # a damaged file is replaced
        others = [one for one in judgements(checkpoint) if one.data != new.data]
    with suppress(OutputError):  # the checkpoint may lie on a read-only disk
        write_json(path, asdict(_Stored(file_sha256(checkpoint), [*others, new])))
        return path
    return None
