"""Card: a run directory -> one self-contained page and its Markdown twin.

In: the artefacts of a run, nothing else (`artefacts`). Out: `10_card.html` and `10_card.md`. The one idea: the page is a
function of the files, so anyone with the run directory can make it again and find every number in a row. The page asks
the network for nothing and runs no script (its content security policy forbids both), and whatever a model wrote is
shown, never interpreted (`text`). Not here: measuring; what was not run is said to be missing, not guessed.
"""

from __future__ import annotations

from pathlib import Path

from preceptor import stats
from preceptor.card import plots
from preceptor.card.artefacts import read
from preceptor.card.data import TRAINING_RULE, TRANSCRIPT_RULE, CardData, collect
from preceptor.card.text import html_environment, markdown_environment
from preceptor.errors import boundary

HTML, MARKDOWN = "10_card.html", "10_card.md"

RULES = {
    "goodness": stats.GOODNESS_RULE,
    "transcripts": TRANSCRIPT_RULE,
    "training": TRAINING_RULE,
    "intervals": (
        "Intervals are 95 %. Every suite is first reduced to one value per prompt. Values that are all 0 or 1: Wilson score interval; "
        f"otherwise percentile bootstrap over prompts, {stats.RESAMPLES:,} resamples. "
        "Differences: pairs of the same prompt, percentile bootstrap over pairs; "
        "p by exact McNemar test, or by sign flips where values are not 0 or 1, adjusted by Holm over the whole table. "
        "A difference is called better or worse when its interval and its adjusted p (0.05) both exclude zero. "
        "A completion without a score is left out and counted; abstentions of a grader are never scores."
    ),
}


def build(run_dir: Path) -> CardData:
    """All that the card says. Raises `DataError` when `run_dir` is not a run directory or an artefact is damaged."""
    return collect(read(run_dir))


def html(card: CardData) -> str:
    """The page."""
    return html_environment().get_template("template.html").render(card=card, plots=plots, rules=RULES)


def markdown(card: CardData) -> str:
    """The Markdown twin: the same sections, tables in place of plots."""
    return markdown_environment().get_template("page.md").render(card=card, rules=RULES)


def run(run_dir: Path) -> tuple[Path, Path]:
    """Write both files into the run directory and return their paths."""
    card = build(run_dir)
    paths = run_dir / HTML, run_dir / MARKDOWN
    with boundary("card"):
        for path, page in zip(paths, (html(card), markdown(card)), strict=True):
            path.write_text(page, encoding="utf-8")
    return paths
