"""What every test may rely on: no network, and the public data where it is present.

Nothing here reaches into the package; doubles of models live in the package itself, beside the real ones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from hypothesis import settings
except ImportError:  # the environments of Inspect and of the clients have no property to test
    settings = None

if TYPE_CHECKING:
    from stores import Postgres

    from preceptor.gateway.database import Database

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
# Subprocesses of tests find the package as pytest does, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
LOCAL = {"127.0.0.1", "::1", "localhost"}

if settings:
    # What decides about a change draws the same examples every time, so that it fails for the change and never by chance;
    # `make test-slow` draws others each time. No example is timed: a machine that pauses is no defect.
    settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
    settings.register_profile("explore", deadline=None, print_blob=True)
    settings.load_profile("same")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails at once, unless it is marked `live`."""
    if request.node.get_closest_marker("live"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise AssertionError(f"a test tried to reach {address[0]!r}; mark it `live` or use a double")
        connect(self, address)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets: `PRECEPTOR_DATA`, or `shared/data` beside the checkout; skips where neither is."""
    path = Path(os.environ.get("PRECEPTOR_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no public data at {path}; set PRECEPTOR_DATA to a folder that has it")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture
def quiet_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspect fetches nothing, and keeps nothing but beside the test."""
    for name, value in (("HF_HUB_OFFLINE", "1"), ("INSPECT_LOG_LEVEL", "critical"), ("INSPECT_DISPLAY", "none")):
        monkeypatch.setenv(name, value)
    for name in ("INSPECT_CACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "inspect-cache"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for the whole of the tests; skips where it cannot be had."""
    from stores import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty place for a trace store, of either kind."""
    from preceptor.gateway import database

    return database.at(str(tmp_path / "traces.db") if request.param == "sqlite" else request.getfixturevalue("postgres").database())
