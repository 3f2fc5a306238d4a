"""The outcome of a bulk command: its exit code, its counts, its failures and its last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cascade.bulk.progress import with_examples
from cascade.reporting.words import counted

ALL_DONE, SOME_FAILED = 0, 1  # exit codes; a wrong command line ends with 2
TERMINATED = 143  # exit code after SIGTERM; Ctrl-C ends with 130


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The counts and failures of all jobs.

    Attributes:
        new: number of results made now, by all processes that worked together.
        done_before: number of results that existed already.
        failed: name and reason of each input, folder or shard without a result, and of each sheet
            of variants that could not be written.
        unfinished: number of jobs left because the command was stopped.
        left_out: number of files in the inputs that are hidden or not pictures.
        unsuitable: name and reason of each picture that the command leaves out.
        lost: for each picture, what its result does not keep of it, and why.
    """

    new: int
    done_before: int
    failed: Sequence[tuple[str, str]]
    unfinished: int
    left_out: int
    unsuitable: Sequence[tuple[str, str]] = ()
    lost: Sequence[tuple[str, str]] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ran to its end."""
        return SOME_FAILED if self.failed else ALL_DONE

    def loss_lines(self) -> list[str]:
        """At most one line: what the results do not keep of the pictures, and of how many."""
        counts = Counter(self.lost)
        parts = [
            f"{what} of {counted(count, 'image')} ({why})" for (what, why), count in counts.items()
        ]
        return [f"not kept: {'; '.join(parts)}"] if parts else []

    def unsuitable_lines(self) -> list[str]:
        """One line for each reason to leave pictures out: how many there are, and examples."""
        names: dict[str, list[str]] = {}
        for name, reason in self.unsuitable:
            names.setdefault(reason, []).append(name)
        return [
            with_examples(f"left out: {counted(len(each), 'image')}, {reason}", each).text
            for reason, each in names.items()
        ]

    def last_line(self, description: str) -> str:
        """All counts in one line.

        Args:
            description: what was done to the pictures, such as `upscaled`.
        """
        parts = [f"{self.new:,} {description}"]
        if self.done_before:
            parts.append(f"{self.done_before:,} already done")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed")
        if left_out := self.left_out + len(self.unsuitable):
            parts.append(f"{left_out:,} left out")
        if self.unfinished:
            parts.append(f"{self.unfinished:,} left; run the same command again to continue")
        return ", ".join(parts)


def failure_line(name: str, reason: str) -> str:
    """The line about an input without a result."""
    return f"failed: {name}: {reason}"
