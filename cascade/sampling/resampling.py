"""Resampling: going over parts of a walk again, so that new pixels fit the known ones.

After RePaint (Lugmayr et al. 2022, arXiv 2201.09865, section 4.2 and appendix B): at each step the
known pixels are put in whatever the network draws beside them, so the two do not agree. Adding
noise again and going over the same levels gives the network time to bring them together. A jump
goes back several steps at once, because the noise of a single step changes little.

A walk of N steps passes N + 1 states: state k is the canvas before step k, and state N is the
result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cascade.arguments import whole_number


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How often a walk goes over its steps.

    Attributes:
        resamplings: how often each step is taken, at least 1; 1 never jumps back.
        jump_length: number of steps that a jump goes back, at least 1. Jumps start at the end of
            the walk and every so many steps before it.

    Raises:
        ContractError: if a value is out of range.
    """

    resamplings: int = 1
    jump_length: int = 1

    def __post_init__(self) -> None:
        for name in ("resamplings", "jump_length"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low=1))

    def moves(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The pairs of states that a walk moves between: (k, k + 1) for a step, else a jump back.

        Args:
            first: state that the walk starts at.
            last: state that it ends at, the number of steps.
        """
        start = first
        while start < last:
            # The parts are counted from the end, so only the first one may be shorter.
            end = start + ((last - start - 1) % self.jump_length) + 1
            for time in range(self.resamplings):
                if time:
                    yield end, start
                for state in range(start, end):
                    yield state, state + 1
            start = end
