"""What a pseudo mask hangs on, besides the photograph, its classes and the network."""

from dataclasses import dataclass
from typing import Self

from analysis.ranges import require_number
from wsss import UserError
from wsss.config import Config
from wsss.refinement import DILATIONS

MOST_STEPS = 30
"""Refinement steps that the page can scrub through."""


@dataclass(frozen=True)
class PseudoSettings:
    """The settings of the refinement (Eq. 5, 6) and of the rule that makes a mask of its maps (Sec. 4.1.3).

    Raises:
        UserError: a number is none or out of its range, or a dilation is not the paper's.
    """

    alpha: float  # of Eq. 5
    steps: int  # T of Eq. 6
    object_cutoff: float
    background_cutoff: float
    least_cutoff: float
    dilations: tuple[int, ...]  # distances of the neighbours in pixels of the grid; their order does not matter
    background_affinity: bool  # whether the background has a class affinity: `with_background_scores`

    @classmethod
    def of(cls, config: Config) -> Self:
        """Those that a network was trained with, at the end of its training."""
        return cls(
            config.alpha,
            min(config.refine_steps, MOST_STEPS),
            config.object_cutoff,
            config.background_cutoff,
            config.least_cutoff,
            DILATIONS,
            config.background_affinity,
        )

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha)
        require_number("T", self.steps, MOST_STEPS)
        require_number("the threshold", self.object_cutoff)
        require_number("the background's threshold", self.background_cutoff)
        require_number("the floor", self.least_cutoff)
        if not self.dilations or not set(self.dilations) <= set(DILATIONS):
            raise UserError(f"dilations must be some of {', '.join(map(str, DILATIONS))}, got {list(self.dilations)}")
        object.__setattr__(self, "dilations", tuple(sorted(self.dilations)))  # as what is remembered is found by them

    @property
    def kernel(self) -> tuple[tuple[int, ...], bool]:
        """Those that the kernels of Eq. 5 depend on, without alpha, which mixes them."""
        return self.dilations, self.background_affinity
