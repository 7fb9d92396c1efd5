"""Datasets on the Hugging Face hub, ``hf://USER/NAME``: a folder is uploaded, or fetched, whole.

The tests check what huggingface_hub is asked for; they do not ask the hub.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from coopt_fl.core.errors import ConfigError, CooptError, DataError, OutputError

HUB = "hf://"


def repository(url: str) -> str | None:
    """Return the repository that ``hf://USER/NAME`` names; None where it is another kind of URL.

    Raises:
        ConfigError: it is not written so.
    """
    if not url.startswith(HUB):
        return None
    name = url.removeprefix(HUB).rstrip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"{url!r}: write hf://USER/NAME, without `datasets/` and a revision")
    return name


def upload(folder: str, repository: str) -> None:
    """Make what is in ``folder`` the content of a dataset repository, in one commit.

    A repository that does not exist is created, and is private: its owner may open it.

    Raises:
        OutputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    with _told(OutputError, f"{HUB}{repository} cannot be written"):
        api = HfApi()
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            delete_patterns=["data/*", "student/*"],  # of another dataset that was there before
            commit_message="coopt push",
        )


def download(repository: str) -> str:
    """Return a folder, in the hub's cache, with the content of a dataset repository.

    Raises:
        DataError: the hub cannot be reached, or has no such repository.
    """
    from huggingface_hub import snapshot_download

    with _told(DataError, f"{HUB}{repository} cannot be read"):
        return snapshot_download(repository, repo_type="dataset")


@contextmanager
def _told(kind: type[CooptError], what: str) -> Iterator[None]:
    """Raise a ``kind`` for whatever the library raises."""
    try:
        yield
    except Exception as error:  # of its own, of requests', of the system's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(
            f"{what} ({reason}); check the name, the network, and that `hf auth login` or HF_TOKEN "
            "gives access, then run the same command again"
        ) from error
