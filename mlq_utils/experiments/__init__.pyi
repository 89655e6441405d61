from . import comparison, diagnosis, nlu, planning, scales, studies, sweep, tables, trial, worlds
from .diagnosis import diagnose
from .executors import run_all
from .exporting import export
from .runner import VOCABULARY_SEED, VOCABULARY_SIZES, run
from .spec import SHIPPED, STORE, Spec, costs, default_store, losses, scores, spec_of
from .store import Store, write_lines

__all__ = [
    "SHIPPED", "STORE", "VOCABULARY_SEED", "VOCABULARY_SIZES", "Spec", "Store", "comparison",
    "costs", "default_store", "diagnose", "diagnosis", "export", "losses", "nlu", "planning", "run",
    "run_all", "scales", "scores", "spec_of", "studies", "sweep", "tables", "trial", "worlds",
    "write_lines",
]  # fmt: skip
