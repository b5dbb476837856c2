"""What it means that an OpenAI-compatible server does not answer with 200: a status, and the code in the body, become a family.

In: a status, a code.  Out: one word. What is to be done about it, and what is said to whom, is the business of whoever asked: the batch client
tries again or stops a run (`endpoint`), the gateway tells its own client without a word of the server's.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

BUSY = frozenset({429, 503, 529})
PASSING = frozenset({408, 409, 425, 500, 502, 504, 520, 522, 524})
BLOCKED = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})

LONG = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_LONG = re.compile(r"context (?:length|size|window)", re.IGNORECASE)
"""How servers without such a code begin to say it."""

Family = Literal["key", "unknown", "address", "credit", "busy", "passing", "blocked", "long", "wrong"]
"""key: the server refuses access. unknown: no such model or address. address: it answers no chat completions. credit: the account is empty.
busy: come again later. passing: it may work the next time. blocked: its filter refuses this request. long: it does not fit into the model's context.
wrong: this request, for another reason."""


def family(status: int, code: str = "", words: str = "") -> Family:
    """Of a status other than 200, with the code that the body names, and what it says."""
    if status in (401, 403):
        return "key"
    if status == 404:
        return "unknown"
    if status < 400 or status == 405:
        return "address"
    if status == 402 or code == "insufficient_quota":
        return "credit"
    if status in BUSY:
        return "busy"
    if status in PASSING or status >= 500:
        return "passing"
    if code in BLOCKED:
        return "blocked"
    return "long" if code in LONG or _LONG.search(words) else "wrong"


def complaint(body: Any) -> Mapping[str, Any]:
    """The fields of an error, which servers put in `error` or at the top, or as a text."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    return error if isinstance(error, Mapping) else {"message": error} if error else {}


def code_of(body: Any) -> str:
    """The code of an error, else its type; empty without either."""
    fields = complaint(body)
    return str(fields.get("code") or fields.get("type") or "")


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds a server asks to wait: `Retry-After` in seconds or as a date, `retry-after-ms`; 0 when it does not say."""
    with contextlib.suppress(ValueError, TypeError):
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        said = headers.get("retry-after", "0")
        return (
            max(0.0, float(said)) if said.replace(".", "", 1).isdigit() else max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
        )
    return 0.0
