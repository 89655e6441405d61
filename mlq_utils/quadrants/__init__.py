"""The paper's four quadrants, and advice on how to tune a language.

This room holds Equation 1 and the assignment of quadrants, shows how much the assignment depends
on the threshold, the factor and sampling error, and predicts the quadrant of a new language.
"""

from mlq_utils.quadrants.advice import (
    Advice,
    Trial,
    classifier,
    evaluate,
    examples,
    features,
    held_out,
    recommend,
)
from mlq_utils.quadrants.assignment import (
    QUADRANTS,
    REFERENCE_TARGETS,
    assign,
    delta,
    published,
    quadrant,
    sensitivity,
    stability,
    summarise,
    threshold,
    trained,
)
from mlq_utils.quadrants.strategies import runs

__all__ = [
    "QUADRANTS", "REFERENCE_TARGETS", "Advice", "Trial", "assign", "classifier", "delta",
    "evaluate", "examples", "features", "held_out", "published", "quadrant", "recommend", "runs",
    "sensitivity", "stability", "summarise", "threshold", "trained",
]  # fmt: skip
