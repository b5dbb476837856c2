"""The Hugging Face hub: what it says about a data set at one commit, and its files.

In: a data set's name and a commit. Out: its card, its file names, whether it is gated; files on this machine. Asked only by `sources`, and
only for what is not here yet.

What goes wrong on the way (no such commit, a gate, no network) is one line that says what to do. A token, where one is needed, is read from
the environment by the hub's own library; it is never seen here.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.errors import DataError, require_extra


@dataclass(frozen=True)
class About:
    """A data set at a commit."""

    names: tuple[str, ...]
    card: Mapping[str, Any]
    gated: bool


@dataclass(frozen=True)
class Cached:
    """What the hub's cache (`HF_HOME`) knows of a commit: all its files by name, and the folder where those that were fetched lie."""

    names: tuple[str, ...]
    home: Path


def cached(dataset: str, revision: str) -> Cached | None:
    """A commit in the cache; None where its list of files is not there, for without it nobody knows what is missing."""
    require_extra("data", "huggingface_hub")
    from huggingface_hub import constants, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(dataset, repo_type="dataset", revision=revision)
    except CachedRepoTreeNotFoundError:
        return None
    home = Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}" / "snapshots" / revision
    return Cached(tuple(sorted(file.path for file in tree)), home)


def card(folder: Path) -> dict[str, Any]:
    """The metadata at the head of a data set's `README.md`; empty where there is none."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    require_extra("data", "huggingface_hub")
    from huggingface_hub import metadata_load

    try:
        return metadata_load(readme) or {}
    except Exception as error:  # whatever its YAML parser raises
        raise DataError(f"the card cannot be read: {' '.join(str(error).split())[:200]}", where=readme) from None


def about(dataset: str, revision: str) -> About:
    """What the hub says. Raises `DataError`."""
    require_extra("data", "huggingface_hub")
    from huggingface_hub import HfApi

    with _explained(dataset, revision):
        info = HfApi().dataset_info(dataset, revision=revision)
    said = info.card_data.to_dict() if info.card_data else {}
    return About(tuple(item.rfilename for item in info.siblings or ()), said, bool(info.gated))


def fetch(dataset: str, revision: str, names: Sequence[str]) -> Path:
    """Have the files here, and the card with them: the folder they lie in. Raises `DataError`."""
    from huggingface_hub import snapshot_download

    with _explained(dataset, revision):
        wanted = [glob.escape(name) for name in ("README.md", *names)]
        return Path(str(snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=wanted)))


@contextmanager
def _explained(dataset: str, revision: str) -> Iterator[None]:
    """Whatever the hub's library raises, as one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise DataError("it is gated, and you have no access", where=dataset, hint="ask its owner on the hub, then set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise DataError(f"it has no commit {revision}", where=dataset, hint="correct `revision`") from None
    except errors.RepositoryNotFoundError:
        raise DataError("the hub has no such data set", where=dataset, hint="correct `dataset`; a private one needs HF_TOKEN") from None
    except (errors.HTTPError, OSError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise DataError(
            f"cannot be fetched: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            where=dataset,
            hint="put a copy of it into the folder `prompts.local_copies`, or try again where the hub can be reached",
        ) from None
