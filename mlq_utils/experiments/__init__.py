"""Runs and their records: what to run, where to run it, and what was found.

A `Spec` says what to run and `run` returns its record, which a `Store` keeps. `run_all` makes many
runs on this machine or on a cluster. `studies` holds the runs that the book rests on; `scales`,
`tables` and `comparison` hold those of the paper; `family` makes bases on changed texts, and
`worlds` says what comes of them; `planning` tells what runs will take, and `nlu` scores models on
tasks of language understanding.

Names are loaded on first use, so that reading records does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
