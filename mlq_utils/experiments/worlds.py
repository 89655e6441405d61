"""A family of bases, in which one thing in the text or several together are changed.

    mlq worlds plan                        # hours and disk of what is missing
    mlq worlds run --workers 2             # pretrains, tunes and scores it; killed, it goes on
    effects()                              # what each factor does, and which prediction it meets

`data/worlds/predictions.yaml` has the factors, the design, the runs, the outcomes, and what the
paper's explanations and their rivals predict. A world is a value, as a run is. Its base is kept in
the store's folder, and its record is shipped without it.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
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
from mlq_utils.quadrants import QUADRANTS
from mlq_utils.scoring.intervals import LEVEL

FOLDER = PACKAGE_DATA / "worlds"
PLAN = yaml.safe_load((FOLDER / "predictions.yaml").read_text("utf8"))
FACTORS: dict[str, dict[str, Any]] = PLAN["factors"]
OUTCOMES: dict[str, str] = PLAN["outcomes"]
"""What is compared, by name, in words."""
SCALES: dict[int, dict[str, Any]] = PLAN["scales"]
"""What of the recipe a scale changes."""
_GROUPS: dict[str, list[str]] = PLAN["languages"]
BASE_HOURS, BASE_GB = 0.55, 0.013
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
        about.append(_GROUPS)
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
        all_share = {"test_size": PLAN["sentences"], "ciphers": self.ciphers}
        all_share["base"] = str(self.base(store))
        specs = []
        for grid in PLAN["runs"]:
            fixed = {"languages": [[]], "learning_rate": [None]} | grid
            targets, axes = (
                fixed.pop("targets"),
                (fixed.pop("languages"), fixed.pop("learning_rate")),
            )
            for tuned, rate in itertools.product(*axes):
                codes = tuple(dict.fromkeys(_codes(targets, tuned)))
                run = {"learning_rate": rate, **fixed, **all_share}
                specs.append(Spec(tuple(tuned), codes, **run))
        return specs

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
        records = run_all(self.specs(store), store, progress=progress)
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
                "tokens_per_char": self._tokens(folder),
                "sha256_of": {name: sha256(folder / name) for name in files},
                "scores": json.loads(_scores(records, store).to_json(orient="records")),
            },
        )

    def _tokens(self, folder: Path) -> dict[str, float]:
        """Return the tokens per character of the test sentences by language."""
        tokenizer = tokenization.load(folder)
        with cldr.enciphered(self.ciphers):
            texts = {
                code: cldr.pairs(code, "test", PLAN["sentences"])["target"].tolist()
                for code in _codes(PLAN["runs"][0]["targets"], ())
            }
        frame = tokenization.analyse(tokenizer, texts).set_index("language")
        return frame["tokens_per_char"].round(4).to_dict()


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


def _codes(names: Sequence[str], tuned: Sequence[str]) -> list[str]:
    whole = _GROUPS | {"itself": tuned}
    return [code for name in names for code in whole.get(name, [name])]


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


def assigned(found: Sequence[Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """Return the quadrants of the languages that worlds are tuned on.

    Args:
        found: Records of worlds. Defaults to those that are done.

    Returns:
        One row per world and language, as `studies.assigned`, with the world's `high` and `seed`,
        the language's `share` of the tokens (0 to 1) and its `tokens_per_char`. The threshold T is
        the mean score of the untuned base over the languages that worlds score.
    """
    frames = []
    for record in records() if found is None else found:
        scores = pd.DataFrame(record["scores"]).assign(seed=0)
        alike = scores[(scores["strategy"] == "embed") & (scores["size"] == Spec.size)]
        untuned, tuned = (alike[(alike["tuned_on"] == "") == bare] for bare in (True, False))
        frame = studies.assigned(untuned, tuned[tuned["tuned_on"] != "en"])
        text, total = record["text"]["language_tokens"], sum(record["text"]["tokens"].values())
        shares = frame["language"].map(text).fillna(0) / total
        tokens = frame["language"].map(record["tokens_per_char"])
        frames.append(frame.assign(**record["spec"], share=shares, tokens_per_char=tokens))
    return pd.concat(frames, ignore_index=True)


def outcomes(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the `OUTCOMES` of a world from its record."""
    scores = pd.DataFrame(record["scores"]).fillna({"learning_rate": 0.0})
    keys = ["strategy", "learning_rate", "tuned_on", "target"]
    few = scores[scores["size"] < Spec.size].set_index(["tuned_on", "target"])
    scores = scores[scores["size"] == Spec.size]
    points, bits = (
        scores.set_index(keys)[column].sort_index()
        for column in ("spbleu", "reference_bits_per_char")
    )
    others, named = _GROUPS["others"], _GROUPS["named"]

    embed = ("embed", 0.0)

    def change(tuned_on: str, targets: Sequence[str], way: tuple = embed, of=points) -> float:
        kept = [code for code in targets if code != tuned_on or len(targets) == 1]
        return float((of[(*way, tuned_on)] - of[(*embed, "")])[kept].mean())

    def own(*codes: str, way: tuple = embed) -> float:
        return float(np.mean([change(code, [code], way) for code in codes]))

    def unseen(code: str) -> float:
        row = few.loc[code, code]
        shares = [row[f"names_{s}_right"] / row[f"names_{s}"] for s in ("unseen", "seen")]
        return shares[0] - shares[1]

    first = scores[(scores["tuned_on"] == "") & scores["target"].isin(others)]
    both = pd.DataFrame({code: points["embed", 0.0, code] for code in ("ro", "lt")}).loc[named]
    return {
        "untuned": float(points["embed", 0.0, ""][others].mean()),
        "copies": float(first["source_copy"].sum() / first["sentences"].sum()),
        "english_lifts": change("en", others),
        "english_lifts_dosed": change("en", _GROUPS["dosed"]),
        "others_rise": change("ro", others),
        "own_rise": own("ro"),
        "unseen": unseen("ro"),
        "full_costs": change("ro", others, ("full", 0.003)),
        "same_order": float(both["ro"].corr(both["lt"], "spearman")),
        "frequency": change("ro", ["de", "fr", "ru"])
        - change("ro", ["bg", "cs", "hr", "sv", "uk"]),
        "afrikaans": change("ro", ["af"]),
        "hungarian": own("hu"),
        "kin": own("es", "pt") - own("tr", "et"),
        "helpers": (change("lt", others) + change("jv", others)) / 2,
        "bytes": own("km", "te"),
        "bytes_full": own("km", way=("full", 0.003)),
        "others_bits": change("ro", others, of=bits),
        "own_bits": change("ro", ["ro"], of=bits),
        "helpers_bits": sum(change(code, others, of=bits) for code in ("lt", "jv")) / 2,
    }


def effects(
    found: Sequence[Mapping[str, Any]] | None = None, level: float = LEVEL, small: float = 1 / 8
) -> pd.DataFrame:
    """Return what each factor does to each outcome, and which prediction that meets.

    Args:
        found: Records of worlds. Defaults to those that are done.
        level: Confidence level of the intervals. Defaults to 0.95.
        small: An effect counts as none if it is surely smaller than this share of the outcome's
            largest absolute value. Defaults to an eighth.

    Returns:
        One row per factor and outcome: `factor`, `outcome`, `effect` with its interval `low`,
        `high`, the outcome's largest absolute value `scale`, `predicted_by_paper` and
        `predicted_by_rival` ("+", "-", "0", or "" for none), and the `verdict`. See
        `predictions.yaml` for the rule.

    Raises:
        ValueError: There are too few worlds to tell the factors apart.
    """
    from scipy import stats

    found = records() if found is None else found
    worlds = [World(**record["spec"]) for record in found]
    levels = _levels([world.high for world in worlds])
    free = len(worlds) - len(FACTORS) - 1
    if free < 1 or np.linalg.matrix_rank(levels) <= len(FACTORS):
        raise ValueError(f"{len(worlds)} worlds cannot tell {len(FACTORS)} factors apart")
    values = pd.DataFrame([outcomes(record) for record in found])
    inverse = np.linalg.inv(levels.T @ levels)
    fit = inverse @ levels.T @ values.to_numpy()
    noise = ((values - levels @ fit) ** 2).sum() / free
    half = np.sqrt(np.outer(np.diag(inverse), noise)) * stats.t.ppf((1 + level) / 2, free)
    said = {(p["factor"], p["outcome"]): (p["paper"], p["rival"]) for p in PLAN["predictions"]}
    rows = []
    for n, letter in enumerate(FACTORS, 1):
        for m, name in enumerate(OUTCOMES):
            effect, low, high = fit[n, m], fit[n, m] - half[n, m], fit[n, m] + half[n, m]
            scale = values[name].abs().max()
            paper, rival = said.get((letter, name), ("", ""))
            verdict = _verdict(_sign(low, high, scale * small), paper, rival)
            rows.append((letter, name, effect, low, high, scale, paper, rival, verdict))
    columns = ["factor", "outcome", "effect", "low", "high", "scale"]
    columns += ["predicted_by_paper", "predicted_by_rival", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _levels(high: Sequence[str]) -> np.ndarray:
    """Return 1 and the levels of all factors, 0 or 1, a row per world."""
    return np.array([[1, *(letter in one for letter in FACTORS)] for one in high], float)


def _sign(low: float, high: float, small: float) -> str:
    """Return the sign of an effect: "+", "-", "0" if it is surely small, "" if undecided."""
    if -small <= low and high <= small:
        return "0"
    return "+" if low > 0 else "-" if high < 0 else ""


def _verdict(sign: str, paper: str, rival: str) -> str:
    if not paper:
        return ""
    if not sign:
        return "undecided"
    met = {"paper": sign == paper, "rival": sign == rival}
    return "both" if all(met.values()) else next((who for who in met if met[who]), "neither")


def moved(assignments: pd.DataFrame) -> pd.DataFrame:
    """Return in how many worlds each language falls into each quadrant, and what moves it most.

    Args:
        assignments: A frame as `assigned` returns it.

    Returns:
        One row per language: `language`, the number of worlds by quadrant, the `factor` whose
        levels differ most in how their worlds spread over the quadrants, and how much they differ:
        the `share` of the worlds of one level that would have to move (0 to 1).
    """
    rows = []
    for code, worlds in assignments.groupby("language", sort=False):
        spread = pd.get_dummies(worlds["quadrant"]).reindex(columns=QUADRANTS, fill_value=False)
        shares = _differences(spread, worlds["high"]).abs().sum(axis=1) / 2
        about = {"factor": shares.idxmax(), "share": shares.max()}
        rows.append({"language": code, **spread.sum(), **about})
    return pd.DataFrame(rows)


def _differences(values: pd.DataFrame, high: pd.Series) -> pd.DataFrame:
    """Return what worlds have more on average where a factor is high; 0 if one level is missing."""
    places = {letter: high.str.contains(letter).to_numpy() for letter in FACTORS}
    rows = {x: values[place].mean() - values[~place].mean() for x, place in places.items()}
    return pd.DataFrame(rows).T.fillna(0)


def table(found: Sequence[Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """Return the `OUTCOMES` of worlds, by default of those that are done, a row each.

    Further columns are `scale`, the highest score in the world, and `high`, its factors.
    """
    found = records() if found is None else found
    frame = pd.DataFrame([outcomes(record) for record in found])
    frame["scale"] = [max(row["spbleu"] for row in record["scores"]) for record in found]
    frame["high"] = [record["spec"]["high"] for record in found]
    return frame


def seen(rule: str, worlds: pd.DataFrame) -> str:
    """Say in how many worlds something is seen, and on which factor that hangs.

    Args:
        rule: An expression over the columns of `table`.
        worlds: A frame as `table` returns it.

    Returns:
        Words, or "" if no world is done. A factor is named if its levels differ by a half or more
        in the share of worlds that show it, and enough worlds are done to tell factors apart.
    """
    if worlds.empty:
        return ""
    held, high = worlds.eval(rule), worlds["high"]
    said = f"in {held.sum()} of {len(worlds)} worlds"
    shares = _differences(held.to_frame("held"), high)["held"].abs()
    letter = shares.idxmax()
    if shares[letter] < 0.5 or np.linalg.matrix_rank(_levels(high)) <= len(FACTORS):
        return said
    is_high = high.str.contains(letter)
    counts = [f"{held[level].sum()} of {level.sum()}" for level in (is_high, ~is_high)]
    changes = FACTORS[letter]["changes"]
    return f"{said}; by {changes} ({letter}): {counts[0]} where high, {counts[1]} where low"


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
