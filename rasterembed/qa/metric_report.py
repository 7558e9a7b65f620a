"""What the quality reports of a dataset and of a collection have in common: judged metrics, and their texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rasterembed.escape import escape_lines, escape_markdown, escape_terminal, markdown_code
from rasterembed.parameter_names import NamedParameter, replace_parameters
from rasterembed.qa.metrics import Metric, Status, breached
from rasterembed.qa.thresholds import Bound
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command


class MetricReport(BaseModel):
    """A report with judged metrics.

    A subclass declares the fields `passed`, `metrics`, `notes` and `pictures`. pydantic would write fields of this
    class before those of the subclass, so this class has no fields.
    """

    model_config = ConfigDict(frozen=True)

    if TYPE_CHECKING:
        passed: bool
        metrics: tuple[Metric, ...]
        notes: tuple[str, ...]
        pictures: tuple[str, ...]

    @property
    def breaches(self) -> tuple[Metric, ...]:
        """Metrics that breach their threshold."""
        return breached(self.metrics)

    def summary(self, *, with_names: bool = True) -> str:
        """Return one line with the numbers of metrics that passed, breached their threshold, or were not judged.

        The line gives the reasons why metrics were not judged.

        Args:
            with_names: whether the line names the breached metrics.

        Example: `21 passed, 2 not judged because not enough pairs of neighbours: 60, but at least 100 are needed`.
        """
        parts = [f"{sum(metric.status is Status.PASSED for metric in self.metrics)} passed"]
        if self.breaches:
            names = f" ({', '.join(metric.name for metric in self.breaches)})" if with_names else ""
            parts.append(f"{len(self.breaches)} breached{names}")
        reasons = Counter(metric.note for metric in self.metrics if metric.status is Status.NOT_JUDGED)
        parts += [f"{count} not judged because {reason}" for reason, count in reasons.items()]
        return escape_terminal(", ".join(parts))

    def table(self) -> str:
        """Return the metrics as a text table for a terminal, with one line for each metric."""
        lines = [("metric", "value", "bound", "status")]
        for metric in self.metrics:
            sign = "<=" if metric.bound is Bound.MAX else ">="
            bound = f"{sign} {metric.threshold_text}"
            lines.append((metric.name, metric.value_text, bound, _status(metric)))
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return escape_lines(
            "\n".join(
                f"{name:<{widths[0]}}  {value:>{widths[1]}}  {bound:<{widths[2]}}  {status}"
                for name, value, bound, status in lines
            )
        )


def _status(metric: Metric) -> str:
    """Return the status as text for a terminal. A breach is in capital letters, so that people see it."""
    match metric.status:
        case Status.PASSED:
            return "passed"
        case Status.BREACHED:
            return "BREACHED"
        case Status.NOT_JUDGED:
            return f"not judged: {metric.note}"


def dry_run_text(report: MetricReport, name: str, state: str | None = None) -> str:
    """Return one line about a dry run: the verdict for the thresholds that were tried, and the state that stays.

    Args:
        report: the report of the dry run.
        name: kind and id of the dataset or the collection, for people.
        state: stored state of the dataset. None for a collection, which has no state of its quality.
    """
    verdict = "would pass" if report.passed else "would not pass"
    stays = "" if state is None else f", so its state is still {state}"
    return escape_terminal(f"dry run: {name} {verdict} with these thresholds; nothing was changed{stays}")


def verdict_text(report: MetricReport) -> str:
    """Return the verdict of a report for its title."""
    return "passed" if report.passed else f"did not pass: {len(report.breaches)} of {len(report.metrics)} breached"


def markdown_words(text: str) -> str:
    r"""Return a text of the library for a report: its parameters and commands are code, as a person types them.

    Example:
        >>> markdown_words("duplicate_share is 1, more than `max_duplicate_share=0.9` (a*b)")
        'duplicate_share is 1, more than `--max-duplicate-share 0.9` (a\\*b)'
    """

    def option(parameter: NamedParameter) -> str | None:
        if parameter.owner is not None:
            return None
        name = f"--{parameter.name.replace('_', '-')}"
        return f"`{name}`" if parameter.value is None else f"`{name} {parameter.value}`"

    parts = re.split("`([^`]+)`", replace_parameters(text, option))
    return "".join(markdown_code(part) if at % 2 else _escaped(part) for at, part in enumerate(parts))


def _escaped(part: str) -> str:
    """Escape a part of a sentence. Its spaces at both ends stay."""
    inner = part.strip()
    if not inner:
        return part
    before, after = part[: part.index(inner)], part[part.index(inner) + len(inner) :]
    return f"{before}{escape_markdown(inner)}{after}"


def how_to_accept(command: str, metrics: Sequence[Metric], store: ObjectStore | None = None) -> str:
    """Return what to do about breached thresholds. The command computes no vector.

    Args:
        command: command that checks the quality again, such as `qa scene`, without the name of the program.
        metrics: the breached metrics.
        store: the store. The command then has its root. A stored report leaves the root out, because a store can be
            moved.
    """
    bounds = (f"--{metric.bound.value}-{metric.name.replace('_', '-')} BOUND" for metric in metrics)
    words = " ".join((command, *bounds))
    shown = f"`rasterembed {words}`" if store is None else store_command(store, words)
    return f"to accept the vectors as they are, check them with other bounds: {shown}"


def summary_lines(report: MetricReport, command: str) -> list[str]:
    """Return the summary, the breaches with what to do, and the notes of a report as lines of Markdown.

    Args:
        report: the report.
        command: command that checks the quality again, without the name of the program.
    """
    advice = how_to_accept(command, report.breaches)
    return [
        f"Metrics: {escape_markdown(report.summary())}.",
        "",
        *(f"- **{markdown_words(metric.sentence())}**" for metric in report.breaches),
        *([f"- {markdown_words(advice[0].upper() + advice[1:])}"] if report.breaches else []),
        *(f"- {markdown_words(note)}" for note in report.notes),
    ]


def picture_lines(
    report: MetricReport, captions: Mapping[str, str], addresses: Mapping[str, str] | None = None
) -> list[str]:
    """Return the pictures of a report as lines of Markdown.

    Args:
        report: the report.
        captions: caption of each picture, by file name. Files without a caption are left out.
        addresses: URI of each picture, by file name. By default, the Markdown refers to files in its own folder.
            A picture without an address is left out: it vanished after the report was written.
    """
    lines = []
    for name in report.pictures:
        address = name if addresses is None else addresses.get(name)
        if name in captions and address:
            lines += ["", f"## {captions[name]}", "", f"![{captions[name]}]({address})"]
    return lines


def metric_lines(metrics: Sequence[Metric]) -> list[str]:
    """Return metrics as a table in lines of Markdown, below a heading."""
    head = ["", "## Metrics", "", "| | metric | value | bound | meaning |", "|---|---|---:|---|---|"]
    return [*head, *map(_row, metrics)]


_MARKS = {Status.PASSED: "✓", Status.BREACHED: "✗", Status.NOT_JUDGED: "–"}


def _row(metric: Metric) -> str:
    sign = "≤" if metric.bound is Bound.MAX else "≥"
    rows = f"measured on {metric.rows:,}" if metric.rows is not None else ""
    # Some viewers do not wrap lines in a table, so the longest column comes last.
    meaning = "; ".join(part for part in (metric.title, rows, metric.note, ", ".join(metric.examples[:3])) if part)
    value, bound = metric.value_text, f"{sign} {metric.threshold_text}"
    return f"| {_MARKS[metric.status]} | `{metric.name}` | {value} | {bound} | {escape_markdown(meaning)} |"
