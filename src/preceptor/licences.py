"""Licences: what data may be trained on without asking, and the record of what was allowed, by whom and why.

In: what is known about a source (its licence, whether it is gated) and what the recipe allows by name. Out: nothing, or the objections
that stop the run.

The one idea: silence is not permission. Data passes by itself only under a licence known to let anybody use and adapt it, commercial use
included. What is non-commercial, forbids derivatives, is unknown to this list or to anyone, or lies behind a gate, passes when the recipe
names it. This reads names, it gives no legal advice: whether the licence on the label is the right one, a person has to know.

Not here: the licences of models, and of what stands upstream of a data set.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

OPEN = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0",
    "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ISC", "MIT", "MIT-0", "ODbL-1.0",
    "ODC-By-1.0", "PDDL-1.0", "Unlicense", "Zlib",
)  # fmt: skip
"""SPDX identifiers of licences under which data may be used and adapted by anybody, some of them with attribution or share-alike."""

_OTHER_NAMES = {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "cc0": "CC0-1.0", "bsl": "BSL-1.0", "bsd": "BSD-3-Clause"}
"""How the Hugging Face hub calls some of them."""
_UNKNOWN = frozenset({"", "unknown", "other", "none", "noassertion", "n/a"})
_SPDX = {name.casefold(): name for name in OPEN}


@dataclass(frozen=True)
class Terms:
    """What is known about a source's terms."""

    licences: tuple[str, ...]
    """As stated; empty when nobody says."""
    gated: bool | None
    """Whether its owner lets only some people have it; None when that is not known."""


def canonical(licence: str) -> str:
    """The SPDX identifier of a licence, however it is written; a name that is not in the list comes back as it is."""
    name = re.sub(r"[\s_]+", "-", licence.strip()).casefold()
    return _OTHER_NAMES.get(name) or _SPDX.get(name) or (name.upper() if name.startswith("cc-by") else licence.strip())


def objection(licence: str) -> str | None:
    """Why data under this licence does not pass by itself; None when it does."""
    name = canonical(licence)
    if name in OPEN:
        return None
    if name.casefold() in _UNKNOWN:
        return "its licence is unknown"
    parts = name.upper().split("-")
    if "NC" in parts or re.search(r"non-?commercial", name, re.IGNORECASE):
        return f"{name} is non-commercial"
    if "ND" in parts:
        return f"{name} forbids derivatives"
    return f"{name} is not in the list of open licences"


def objections(terms: Terms, allowed: Collection[str]) -> tuple[str, ...]:
    """Everything about `terms` that `allowed`, the licences a recipe names, does not cover."""
    names = {canonical(name) for name in allowed}
    stated = terms.licences or ("unknown",)
    found = [reason for name in stated if canonical(name) not in names and (reason := objection(name))]
    return (*found, *(["it is gated"] if terms.gated else []))
