"""The outcome of a bulk command: its exit code, its counts, its failures and its last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cascade.reporting.words import counted

ALL_DONE, SOME_FAILED = 0, 1  # exit codes; a wrong command line ends with 2
TERMINATED = 143  # exit code after SIGTERM; Ctrl-C ends with 130


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The counts and failures of all jobs.

    Attributes:
        new: number of results made now, by all processes that worked together.
        done_before: number of results that existed already.
        failed: name and reason of each input, folder or shard without a result.
        unfinished: number of jobs left because the command was stopped.
        left_out: number of files in the inputs that are hidden or not pictures.
        lost: for each picture, what its result does not keep of it, and why.
    """

    new: int
    done_before: int
    failed: Sequence[tuple[str, str]]
    unfinished: int
    left_out: int
    lost: Sequence[tuple[str, str]] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ran to its end."""
        return SOME_FAILED if self.failed else ALL_DONE

    def loss_lines(self) -> list[str]:
        """At most one line: what the results do not keep of the pictures, and of how many."""
        counts = Counter(self.lost)
        parts = [
            f"{what} of {counted(count, 'picture')} ({why})"
            for (what, why), count in counts.items()
        ]
        return [f"not kept: {'; '.join(parts)}"] if parts else []

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
        if self.left_out:
            parts.append(f"{self.left_out:,} left out")
        if self.unfinished:
            parts.append(f"{self.unfinished:,} left; run the same command again to continue")
        return ", ".join(parts)


def failure_line(name: str, reason: str) -> str:
    """The line about an input without a result."""
    return f"failed: {name}: {reason}"
