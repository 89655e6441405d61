"""What comes of the worlds: outcomes, effects of what is changed, and what moves a language.

`data/worlds/predictions.yaml` has the outcomes, what the paper's explanations and their rivals
predict of them, and the rule that decides. `family` makes the worlds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils.experiments import studies
from mlq_utils.experiments.family import FACTORS, GROUPS, PLAN, records
from mlq_utils.experiments.spec import Spec
from mlq_utils.quadrants import QUADRANTS
from mlq_utils.scoring.intervals import LEVEL

OUTCOMES: dict[str, str] = PLAN["outcomes"]
"""What is compared, by name, in words."""


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
    scores = scores[scores["size"] == Spec.size]
    runs = scores.set_index(["strategy", "learning_rate", "tuned_on", "target"]).sort_index()
    points, bits = runs["spbleu"], runs["reference_bits_per_char"]
    others, named, embed = GROUPS["others"], GROUPS["named"], ("embed", 0.0)
    names = names_right(record).loc["ro"]

    def change(tuned_on: str, targets: Sequence[str], way: tuple = embed, of=points) -> float:
        kept = [code for code in targets if code != tuned_on or len(targets) == 1]
        return float((of[(*way, tuned_on)] - of[(*embed, "")])[kept].mean())

    def own(*codes: str, way: tuple = embed) -> float:
        return float(np.mean([change(code, [code], way) for code in codes]))

    first = scores[(scores["tuned_on"] == "") & scores["target"].isin(others)]
    both = pd.DataFrame({code: points["embed", 0.0, code] for code in ("ro", "lt")}).loc[named]
    return {
        "untuned": float(points["embed", 0.0, ""][others].mean()),
        "copies": float(first["source_copy"].sum() / first["sentences"].sum()),
        "english_lifts": change("en", others),
        "english_lifts_dosed": change("en", GROUPS["dosed"]),
        "others_rise": change("ro", others),
        "own_rise": own("ro"),
        "unseen": names["unseen"] - names["seen"],
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


def names_right(record: Mapping[str, Any]) -> pd.DataFrame:
    """Return the shares of names that are right after tuning on few pairs, `seen` and `unseen`."""
    scores = pd.DataFrame(record["scores"])
    own = (scores["size"] < Spec.size) & (scores["target"] == scores["tuned_on"])
    few = scores[own].set_index("target")
    shares = {
        kind: few[f"names_{kind}_right"] / few[f"names_{kind}"] for kind in ("seen", "unseen")
    }
    return pd.DataFrame(shares)


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
        `predictions.yaml` for the rule. Where worlds are too few to tell factors apart, effects
        are missing and undecided; where none is left over to tell the noise, intervals are.
    """
    from scipy import stats

    found = records() if found is None else found
    levels = _levels([record["spec"]["high"] for record in found])
    free, size = len(found) - len(FACTORS) - 1, levels.shape[1]
    apart = np.linalg.matrix_rank(levels) == size
    inverse = np.linalg.inv(levels.T @ levels) if apart else np.full((size, size), np.nan)
    values = pd.DataFrame([outcomes(record) for record in found])
    fit = inverse @ levels.T @ values.to_numpy()
    noise = ((values - levels @ fit) ** 2).sum() / max(free, 1)
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
    if not (paper and sign):
        return "undecided" if paper else ""
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
        shares = differences(spread, worlds["high"]).abs().sum(axis=1) / 2
        about = {"factor": shares.idxmax(), "share": shares.max()}
        rows.append({"language": code, **spread.sum(), **about})
    return pd.DataFrame(rows)


def differences(values: pd.DataFrame, high: pd.Series) -> pd.DataFrame:
    """Return what worlds have more on average where a factor is high; 0 if one level is missing."""
    places = {letter: high.str.contains(letter).to_numpy() for letter in FACTORS}
    rows = {x: values[place].mean() - values[~place].mean() for x, place in places.items()}
    return pd.DataFrame(rows).T.fillna(0)


def table(found: Sequence[Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """Return the `OUTCOMES`, the highest score (`scale`) and the factors (`high`) of each world."""
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
    shares = differences(held.to_frame("held"), high)["held"].abs()
    letter = shares.idxmax()
    if shares[letter] < 0.5 or np.linalg.matrix_rank(_levels(high)) <= len(FACTORS):
        return said
    is_high = high.str.contains(letter)
    counts = [f"{held[level].sum()} of {level.sum()}" for level in (is_high, ~is_high)]
    changes = FACTORS[letter]["changes"]
    return f"{said}; by {changes} ({letter}): {counts[0]} where high, {counts[1]} where low"
