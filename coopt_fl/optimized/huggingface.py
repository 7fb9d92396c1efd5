"""Datasets on the Hugging Face hub, ``hf://USER/NAME``: upload or download a whole folder.

The tests check the calls of huggingface_hub; they do not contact the hub.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from coopt_fl.core.errors import ConfigError, CooptError, DataError, OutputError

HUB = "hf://"


def repository(url: str) -> str | None:
    """Return the repository that ``hf://USER/NAME`` names; None for another kind of URL.

    Raises:
        ConfigError: an ``hf://`` URL has another form.
    """
    if not url.startswith(HUB):
        return None
    name = url.removeprefix(HUB).rstrip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"{url!r}: write hf://USER/NAME, without `datasets/` and a revision")
    return name


def upload(folder: str, repository: str) -> None:
    """Upload ``folder`` to a dataset repository in one commit, replacing another dataset there.

    A repository that does not exist is created as a private one; its owner may make it public.

    Raises:
        OutputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    with _raising(OutputError, f"{HUB}{repository} cannot be written"):
        api = HfApi()
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            delete_patterns=["data/*", "student/*"],  # of an earlier dataset
            commit_message="coopt push",
        )


def download(repository: str) -> str:
    """Download a dataset repository; return its folder in the hub's cache.

    Raises:
        DataError: the hub cannot be reached, or has no such repository.
    """
    from huggingface_hub import snapshot_download

    with _raising(DataError, f"{HUB}{repository} cannot be read"):
        return snapshot_download(repository, repo_type="dataset")


@contextmanager
def _raising(kind: type[CooptError], what: str) -> Iterator[None]:
    """Raise a ``kind`` for any error of the library, saying ``what`` failed."""
    try:
        yield
    except Exception as error:  # the library's own, requests', or the system's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(
            f"{what} ({reason}); check the name, the network, and that `hf auth login` or HF_TOKEN "
            "gives access, then run the same command again"
        ) from error
