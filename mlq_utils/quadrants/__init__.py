"""Quadrants."""

from mlq_utils.quadrants.assignment import (
    QUADRANTS,
    REFERENCE_TARGETS,
    Advice,
    assign,
    published,
    recommend,
    summarise,
    threshold,
    trained,
)

__all__ = [
    "QUADRANTS",
    "REFERENCE_TARGETS",
    "Advice",
    "assign",
    "published",
    "recommend",
    "summarise",
    "threshold",
    "trained",
]
