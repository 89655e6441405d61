"""Causal language models: loading, tuning, exporting, translating, extending, pretraining.

Example::

    base = modeling.load("mini")                          # or a folder, or a name on the Hub
    result = modeling.fine_tune(base, modeling.mixture({"ro": 600}), "embed")
    modeling.export(result.model, folder)

Only the parts that compute need torch. Names are loaded on first use, so that specifications of
runs, prompts and schedules can be had without torch: from `bases`, `strategies`, `prompts`,
`extension` and `pretraining_text`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
