"""What the bulk commands report while they work: progress, and notes about inputs and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MessageKind = Literal["result", "failure", "note", "detail"]
EXAMPLES = 2  # names in a note that --verbose replaces by the whole list


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in one line.

    Attributes:
        text: the line.
        details: further lines for users who want to see everything.
    """

    text: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of the work.

    Attributes:
        finished: number of jobs that are done or have failed, in all processes.
        total: number of jobs.
        name: name of the current picture.
        part: share of the current picture that is done, in [0, 1].
        message: one line; empty if only the numbers have changed.
        kind: what the message is: the `result` or the `failure` of the current picture, a `note`,
            or a `detail` of one.
        left_s: estimated time in seconds until all jobs are done; None if unknown.
        failed: number of inputs without a result so far.
        page: which page of the current picture it is, such as `page 3 of 40`; empty if it has one.
    """

    finished: int
    total: int
    name: str
    part: float
    message: str = ""
    kind: MessageKind = "result"
    left_s: float | None = None
    failed: int = 0
    page: str = ""


def with_examples(lead: str, examples: Sequence[str]) -> Note:
    """A note with a few examples in its line, and all of them as details."""
    shown = ", ".join(examples[:EXAMPLES])
    more = len(examples) - EXAMPLES
    ending = f" and {more:,} more; --verbose lists them" if more > 0 else ""
    return Note(f"{lead}: {shown}{ending}", examples if more > 0 else ())
