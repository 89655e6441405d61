"""A family of bases, in which one thing in the text or several together are changed.

    mlq worlds plan                        # hours and disk of what is missing
    mlq worlds run --workers 2             # pretrains, tunes and scores it; killed, it goes on

`data/worlds/predictions.yaml` has the factors, the design and the runs. A world is a value, as a
run is. Its base is kept in the store's folder, and its record is shipped without it. `worlds` says
what comes of them.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from mlq_utils import experiments, tokenization
from mlq_utils.corpora import cldr
from mlq_utils.data import PACKAGE_DATA, one_of, sha256
from mlq_utils.experiments import planning, studies
from mlq_utils.experiments.executors import run_all
from mlq_utils.experiments.spec import SEMANTICS, STORE, TEST_SEED, Spec, spec_of
from mlq_utils.experiments.store import Store, write_lines
from mlq_utils.experiments.sweep import failures
from mlq_utils.modeling import MINI
from mlq_utils.modeling.pretraining_text import SETTINGS, Mix

FOLDER = PACKAGE_DATA / "worlds"
PLAN = yaml.safe_load((FOLDER / "predictions.yaml").read_text("utf8"))
FACTORS: dict[str, dict[str, Any]] = PLAN["factors"]
SCALES: dict[int, dict[str, Any]] = PLAN["scales"]
"""What of the recipe a scale changes."""
GROUPS: dict[str, list[str]] = PLAN["languages"]
"""Languages that share a role in the design, by the name of the role."""
BASE_HOURS, BASE_GB = 0.45, 0.013
"""What pretraining takes of one core, and its base of the disk."""


@dataclass(frozen=True)
class World:
    """A base of the family.

    Attributes:
        high: The factors at their high level, such as "ACF".
        seed: Random seed of its text, tokenizer and weights. Defaults to 0.
        scale: How many times the parameters and the text of the packaged base it has, of `SCALES`.
            Defaults to 1.
    """

    high: str = ""
    seed: int = 0
    scale: int = 1

    def __post_init__(self) -> None:
        """Refuse an unknown factor or scale."""
        for letter in self.high:
            one_of("factor", letter, FACTORS)
        one_of("scale", str(self.scale), map(str, SCALES))

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe of its base, see `pretraining.RECIPE`.

        Raises:
            ValueError: No text can have this composition (`Mix`).
        """
        share = 0.1 if "C" in self.high else 0.6
        other = share * (11 / 12 if "B" in self.high else 1 / 8)
        mix = {"english": round(0.75 - share, 4), "other": round(other, 6)}
        changes = [FACTORS[letter].get("recipe", {}) for letter in self.high]
        mix = reduce(dict.__or__, (each.get("mix", {}) for each in changes), mix)
        recipe = reduce(dict.__or__, changes, SETTINGS["recipe"])
        return recipe | SCALES[self.scale] | {"mix": asdict(Mix(**mix, ciphers=self.ciphers))}

    @property
    def ciphers(self) -> tuple[str, ...]:
        """The languages whose letters its base has met as signs."""
        return tuple(code for x in self.high for code in FACTORS[x].get("ciphers", ()))

    def identity(self) -> str:
        """Return the key of its record: a hash of what its text, base and runs follow from."""
        about = [SEMANTICS, self.recipe, self.seed, SETTINGS, PLAN["sentences"], PLAN["runs"]]
        about.append(GROUPS)
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return f"world-{digest[:32]}"

    def cost(self) -> int:
        """Return the same for each of a scale, since all take as long."""
        return self.scale**2

    def base(self, store: Store) -> Path:
        """Return the folder of its base. Without changes and with the seed 0 it is packaged."""
        if self == World():
            return MINI
        return Path(store.url) / "worlds" / self.identity()

    def specs(self, store: Store) -> list[Spec]:
        """Return the runs of its base."""
        shared = {"base": str(self.base(store)), "ciphers": self.ciphers}
        shared["test_size"] = PLAN["sentences"]
        return [spec for grid in PLAN["runs"] for spec in studies.runs(grid | shared, GROUPS)]

    def run(self, store: Store, *, progress: bool | None = None) -> dict[str, Any]:
        """Pretrain its base, tune and score it, and return the record.

        Raises:
            FloatingPointError: The loss of its base became NaN or infinite.
            RuntimeError: Runs have failed; the message names them.
        """
        folder = self.base(store)
        if not (folder / "pretraining.json").exists():
            from mlq_utils.modeling import pretraining

            pretraining.pretrain(folder, self.seed, self.recipe)
        specs = self.specs(store)
        records = run_all(specs, store, progress=progress)
        if failed := failures(records):
            raise RuntimeError(failed)
        about = json.loads((folder / "pretraining.json").read_text("utf8"))
        files = ("model.safetensors", "tokenizer.model")
        return store.put(
            self.identity(),
            {
                "identity": self.identity(),
                "status": "done",
                "spec": asdict(self),
                "recipe": self.recipe,
                **{name: about[name] for name in ("text", "loss", "hardware", "versions")},
                "tokens_per_char": self._tokens(folder, specs[0].targets),
                "sha256_of": {name: sha256(folder / name) for name in files},
                "scores": json.loads(_scores(records, store).to_json(orient="records")),
            },
        )

    def _tokens(self, folder: Path, codes: Sequence[str]) -> dict[str, float]:
        """Return the tokens per character of the test sentences by language."""
        with cldr.enciphered(self.ciphers):
            pairs = {code: cldr.pairs(code, "test", PLAN["sentences"]) for code in codes}
        texts = {code: frame["target"].tolist() for code, frame in pairs.items()}
        found = tokenization.analyse(tokenization.load(folder), texts).set_index("language")
        return found["tokens_per_char"].round(4).to_dict()


_COLUMNS = ["tuned_on", "strategy", "size", "learning_rate", "target", "spbleu", "spbleu_low"]
_COLUMNS += ["spbleu_high", "chrf", "reference_bits_per_char", "sentences", "source_copy"]
_COLUMNS += ["oscillation", "off_target", "empty"]
_NAMES = ["names_seen", "names_seen_right", "names_unseen", "names_unseen_right"]
NAMED = ("territory", "language")
"""The kinds of items that have one name each, whatever the number or the day."""


def _scores(records: Sequence[dict[str, Any]], store: Store) -> pd.DataFrame:
    """Return what is kept of the scores, and how many names were translated."""
    frame = experiments.scores(records)[_COLUMNS]
    counts = [names(spec_of(r), store.hypotheses(r["identity"])) for r in records]
    return frame.join(pd.DataFrame(itertools.chain.from_iterable(counts)))


def names(spec: Spec, hypotheses: pd.DataFrame) -> list[dict[str, int]]:
    """Count the names of states and languages in the test, and those that are translated right.

    Args:
        spec: A run of CLDR's phrases.
        hypotheses: Its translations, as the store keeps them.

    Returns:
        For each target, in order, the numbers of `names_seen` by tuning and `names_unseen`, with
        those that occur in the translation, `names_seen_right` and `names_unseen_right`. A name
        is seen if the pairs tuned on have it, in whatever language. English tasks are no pairs.
    """
    tuned = [cldr.drawn(c, "train", spec.size, spec.seed) for c in spec.languages if c != "en"]
    known, counts = {item for items in itertools.chain(*tuned) for item in items}, []
    for target in spec.targets:
        book = cldr.phrasebook(target)
        found = hypotheses["hypothesis"][hypotheses["target_language"] == target]
        test = cldr.drawn(target, "test", len(found), TEST_SEED)
        pairs = [
            (item in known, book.render((item,)) in text)
            for items, text in zip(test, found, strict=True)
            for item in items
            if item[0] in NAMED
        ]
        right = [[is_right for old, is_right in pairs if old == kind] for kind in (True, False)]
        numbers = [number for each in right for number in (len(each), sum(each))]
        counts.append(dict(zip(_NAMES, numbers, strict=True)))
    return counts


def design(scale: int = 1) -> list[World]:
    """Return all worlds: a fraction of all combinations of levels, and the replicates."""
    full, generated = PLAN["design"]["full"], PLAN["design"]["generated"]
    worlds = []
    for chosen in itertools.product((False, True), repeat=len(full)):
        level = dict(zip(full, chosen, strict=True))
        for letter, word in generated.items():  # high if an odd number of its letters is
            level[letter] = sum(level[x] for x in word) % 2 == 1
        high = "".join(sorted(letter for letter, is_high in level.items() if is_high))
        worlds.append(World(high, scale=scale))
    return worlds + [World("", seed, scale) for seed in PLAN["design"]["replicates"]]


def aliases() -> list[str]:
    """Return groups of pairs of factors whose interactions the design cannot tell apart."""
    worlds, groups = [world for world in design() if not world.seed], {}
    for pair in itertools.combinations(FACTORS, 2):
        alike = tuple((pair[0] in world.high) == (pair[1] in world.high) for world in worlds)
        groups.setdefault(alike, []).append("".join(pair))
    return [" = ".join(pairs) for pairs in groups.values()]


def records(store: Store | None = None, scale: int = 1) -> list[dict[str, Any]]:
    """Return the records of the worlds that are done, in the store or in the package."""
    store = store or Store(STORE, FOLDER)
    found = store.get_all(world.identity() for world in design(scale))
    return [record for record in found.values() if record and record["status"] == "done"]


def plan(store: Store, scale: int = 1) -> pd.DataFrame:
    """Return what the design takes: a row per world, with hours of one core and GB of disk.

    Hours at another scale than 1 are extrapolated by the number of operations.
    """
    # All worlds have the same runs, which are planned as if they were of the packaged base.
    alike = [replace(s, base="mini", ciphers=()) for s in World().specs(store)]
    each = planning.plan(alike, Store(Path(store.url) / "none"), card="cpu")["hours"] * scale
    rows = []
    for world in design(scale):
        done = store.get(world.identity()) is not None
        made = (world.base(store) / "pretraining.json").exists()
        missing = [not done] * len(each)
        if made and not done:
            keys = [spec.identity() for spec in world.specs(store)]
            missing = [record is None for record in store.get_all(keys).values()]
        hours = each[missing].sum() + BASE_HOURS * scale**2 * (not done and not made)
        about = {"world": world.high or "none", "seed": world.seed, "done": done}
        rows.append(
            about | {"pretrained": made, "hours": hours, "gb": BASE_GB * scale * (not made)}
        )
    return pd.DataFrame(rows)


def report(
    command: Literal["plan", "run", "ship"],
    /,
    *,
    store: str = STORE,
    workers: int | None = 1,
    scale: int = 1,
) -> str:
    """Plan the worlds, or make those that the store lacks.

    Args:
        command: "plan" returns the plan as text; "run" prints it and makes the worlds; "ship"
            writes the records of those that are done into the package.
        store: Folder where bases and records are kept.
        workers: Number of processes. None stands for the Dask cluster whose scheduler's address is
            in MLQ_CLUSTER or, if it is not set, one process per GPU or core.
        scale: 1, or 10 for bases with ten times the parameters and ten times the text.

    Raises:
        ValueError: The store is not a folder, the scale is unknown, or no text can have the
            composition of a world.
        SystemExit: Worlds have failed; the message names them.
    """
    kept = Store(store, FOLDER)
    if not Path(kept.url).is_absolute():
        raise ValueError(f"bases need a folder, and {store} is none")
    if command == "ship":
        found = [record for each in SCALES for record in records(kept, each)]
        write_lines(FOLDER / "worlds.jsonl", found)
        return f"{len(found)} worlds are in {FOLDER}."
    frame = plan(kept, scale)
    whole = f"{frame['hours'].sum():.1f} hours of one core, {frame['gb'].sum():.2f} GB of disk"
    text = f"{frame.round(2).to_string(index=False)}\n\n{frame['done'].sum()} of {len(frame)} "
    text += f"worlds are done; the others take {whole}."
    if command == "plan":
        return text
    print(text, flush=True)
    made = run_all(design(scale), kept, workers=workers)
    if failed := [record for record in made if record["status"] != "done"]:
        names = [f"{r['spec']['high'] or 'none'} {r['spec']['seed']}: {r['error']}" for r in failed]
        raise SystemExit(f"{len(failed)} of {len(made)} worlds failed:\n" + "\n".join(names))
    return f"All {len(made)} worlds are done."
