from . import clusters, nlu, outcomes, planning, replication, scales, studies, sweep
from .executors import run_all
from .runner import VOCABULARY_SEED, VOCABULARY_SIZES, run
from .spec import SHIPPED, STORE, Spec, averages, costs, default_store, scores, spec_of
from .store import Store, read_lines, write_lines

__all__ = [
    "SHIPPED",
    "STORE",
    "VOCABULARY_SEED",
    "VOCABULARY_SIZES",
    "Spec",
    "Store",
    "averages",
    "clusters",
    "costs",
    "default_store",
    "nlu",
    "outcomes",
    "planning",
    "read_lines",
    "replication",
    "run",
    "run_all",
    "scales",
    "scores",
    "spec_of",
    "studies",
    "sweep",
    "write_lines",
]
