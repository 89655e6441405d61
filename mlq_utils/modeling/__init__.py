"""Models."""

from mlq_utils.modeling.loading import (
    MINI,
    STRATEGIES,
    Model,
    choose_precision,
    configuration,
    digest,
    for_translation,
    load,
    prepare,
    save,
    saved_as,
)

__all__ = [
    "MINI",
    "STRATEGIES",
    "Model",
    "choose_precision",
    "configuration",
    "digest",
    "for_translation",
    "load",
    "prepare",
    "save",
    "saved_as",
]
