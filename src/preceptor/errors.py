"""What can go wrong, in one vocabulary.

    PreceptorError                 anything this package raises on purpose
    |- UsageError                  the user can mend it: exit code 2, one line, no traceback
    |  |- SpecError                a specification that cannot be read (file and line)
    |  |- RecipeError              an unknown key, a wrong type, a missing value (file and line)
    |  |- DataError                a JSONL row, a prompt file or an artefact that is not what was expected
    |  |- RunLocked                another process holds the run directory
    |  |- MissingExtra             an optional dependency is not installed
    |  '- StorageError             the disk is full or not writable
    |- ModelError                  a model or its server failed; recorded per row, never fatal by itself
    |- StageFailed                 a stage cannot go on (too many abstentions, a mask mismatch, ...)
    |  '- BudgetSpent              what may be spent is spent: nothing else can be asked either
    '- WordingError                a text for a model has an unknown or an unused placeholder

Four rules. A bad completion is data, not a crash: it becomes a status on its row. A judge that fails is an
`Abstention`, never a score. A message says what, where, what was expected and what to do. Whatever escapes a
stage is attributed to that stage in one place, `boundary`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PreceptorError(Exception):
    """Base of everything raised on purpose."""

    exit_code = 1


class UsageError(PreceptorError):
    """Something the user can mend; the command line prints one line and exits with 2."""

    exit_code = 2

    def __init__(self, what: str, *, where: Path | str | None = None, line: int | None = None, hint: str = ""):
        self.what, self.where, self.line, self.hint = what, where, line, hint
        super().__init__(self.render())

    def render(self) -> str:
        """One line: `where:line: what (hint)`."""
        place = "" if self.where is None else f"{self.where}" + (f":{self.line}" if self.line else "") + ": "
        return f"{place}{self.what}" + (f" ({self.hint})" if self.hint else "")


class SpecError(UsageError):
    """A specification that cannot be read."""


class RecipeError(UsageError):
    """A recipe with an unknown key, a wrong type or a missing value."""


class DataError(UsageError):
    """A row or a file that is not what was expected."""


class RunLocked(UsageError):
    """Another process holds the run directory."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class StorageError(UsageError):
    """The disk is full, read-only or gone."""


class ModelError(PreceptorError):
    """A model or its server failed. Stages record it on the row and go on."""


class StageFailed(PreceptorError):
    """A stage cannot go on. What was done before is kept; the next run resumes."""

    exit_code = 2


class BudgetSpent(StageFailed):
    """The limits on tokens or cost bear no further call."""


class WordingError(PreceptorError):
    """A text for a model has an unknown or an unused placeholder."""


_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on file sizes is reached",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk cannot be written to or read",
}
_SYSTEM_ERROR = re.compile(r"\(os error ([0-9]+)\)")
"""In the words of libraries written in Rust: safetensors, tokenizers."""
_IN_WORDS = {"database or disk is full": errno.ENOSPC, "inline_container.cc": errno.EIO}
"""Those of SQLite, and of PyTorch for any file that it cannot write whole."""


@contextmanager
def boundary(stage: str) -> Iterator[None]:
    """Attribute whatever escapes to `stage`. Disk failures become `StorageError`, whichever library met them; usage errors pass through."""
    try:
        yield
    except PreceptorError:
        raise
    except Exception as error:
        number = _number(error)
        if number in _STORAGE or isinstance(error, PermissionError):
            raise StorageError(
                f"{stage}: {_STORAGE.get(number or 0, 'permission denied')}",
                where=getattr(error, "filename", None),
                hint="free space or choose another directory, then run the same command again; finished work is kept",
            ) from error
        if isinstance(error, OSError):
            raise StageFailed(f"{stage}: {error}") from error
        raise


def _number(error: Exception) -> int | None:
    """The system's number of a failed call."""
    if isinstance(error, OSError):
        return error.errno
    said = _SYSTEM_ERROR.search(str(error))
    return int(said[1]) if said else next((number for words, number in _IN_WORDS.items() if words in str(error)), None)


EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "tokenizers"), "train"),
    "ray": "ray",
    "uvicorn": "serve",
    "starlette": "serve",
    "prometheus_client": "serve",
    "aiohttp": "serve",
    "psycopg": "postgres",
    "inspect_ai": "eval",
}
"""Optional module -> the extra that brings it."""


def require_extra(extra: str, module: str) -> None:
    """Raise `MissingExtra` naming the extra to install when `module` cannot be found."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtra(f"this needs the package {module!r}, which is not installed", hint=f"pip install 'preceptor[{extra}]'")
