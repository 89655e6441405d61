"""Which languages a model has, found out without tuning it.

frame = diagnose(languages=("cy", "km"))        # of the packaged base
print(text(frame))
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import modeling, quadrants
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.experiments import drawing, planning, runner
from mlq_utils.experiments.spec import Spec, default_store
from mlq_utils.languages import codes, get
from mlq_utils.scoring import KINDS, intervals

RECORDED = PACKAGE_DATA / "recorded"
"""`diagnosis.csv` has diagnoses of mini bases, from which the probabilities are learned, and
`diagnosis_methods.csv` says how good they are, see `benchmarks/record_diagnosis.py`."""
POOL = 10
"""Number of English sentences among which the nearest one is looked for."""
FEATURES = ("tokens", "bits", "translation", "alignment")
USED = ("indo_european", "latin", *FEATURES)
"""What the probabilities rest on."""


def diagnose(
    *,
    base: str = "mini",
    languages: tuple[str, ...] = (),
    test: tuple[str, str] = ("cldr", "test"),
    sentences: int = 20,
    revision: str | None = None,
    spare_rows: int = 0,
    csv: Path | None = None,
) -> pd.DataFrame:
    """Say which languages a model has, without tuning it.

    Args:
        base: Base model: "mini" for the packaged one, a folder, or a name on the Hub.
        languages: Codes of languages. Defaults to all that the corpus has.
        test: Corpus and split of the sentences.
        sentences: Number of sentences per language, at least 10.
        revision: Commit of a base on the Hub.
        spare_rows: Number of embedding rows that the base may have beyond its vocabulary.
        csv: File to write the table to, with intervals.

    Returns:
        One row per language, with 95% intervals over sentences as `x_low` and `x_high`. `premium`
        is the number of tokens, and `bits_premium` that of bits per character, relative to English;
        `alignment` (see `nearest`) is of the `layer` in `attrs`, where it is highest on average.

    Raises:
        ValueError: A language is unknown, the corpus lacks it, or there are too few sentences.
    """
    if sentences < POOL:
        raise ValueError(f"a diagnosis needs {POOL} sentences or more, not {sentences}")
    targets = languages or tuple(code for code in codes(test[0]) if code != "en")
    options = {"revision": revision, "spare_rows": spare_rows}
    spec = Spec((), targets, test_size=sentences, beam_size=1, base=base, test=test, **options)
    device, dtype = modeling.placement()
    plan = planning.plan([spec], card="cpu" if device.type == "cpu" else "H100")
    print(f"diagnosis: expecting {3600 * plan['hours'].sum():.0f} s", file=sys.stderr)
    record = runner.run(spec, default_store())  # before the model is loaded here, too
    model = modeling.load(base, dtype=dtype, **options)
    model.model.to(device)
    texts = {code: drawing.pairs_to_test(spec, code) for code in targets}
    english = list(dict.fromkeys(text for pairs in texts.values() for text in pairs["source"]))
    bits, states = modeling.read(model, english)
    known = dict(zip(english, states.swapaxes(0, 1), strict=True))
    per_char = intervals.ratio(bits, list(map(len, english)))["ratio"]
    rows, hits = [], []
    for score, pairs in zip(record["scores"], texts.values(), strict=True):
        bits, states = modeling.read(model, pairs["target"].tolist())
        hits.append(nearest(states, np.stack([known[text] for text in pairs["source"]], axis=1)))
        rows.append(_measured(model, score, pairs, bits))
    levels = np.mean([np.nanmean(each, axis=1) for each in hits], axis=0)
    frame = pd.DataFrame(rows)
    best = [_named("alignment", each[levels.argmax()], np.ones(sentences)) for each in hits]
    frame = frame.assign(bits_premium=frame["bits_per_char"] / per_char).join(pd.DataFrame(best))
    frame = frame.join(probabilities(features(frame)), on="language")
    if csv:
        frame.to_csv(csv, index=False, float_format="%.4g")
    frame.attrs = {"layer": int(levels.argmax()), "alignment": levels.round(3).tolist()}
    return frame


def _measured(
    model: modeling.Model, score: Mapping[str, Any], pairs: pd.DataFrame, bits: np.ndarray
) -> dict[str, Any]:
    """Return what a diagnosis says of a language by itself."""
    texts = [pairs[side].tolist() for side in ("source", "target")]
    there, here = (list(map(len, model.tokenizer.encode(side))) for side in texts)
    characters = list(map(len, texts[1]))
    return {
        "language": score["target"],
        "name": get(score["target"]).name,
        **_named("tokens_per_char", here, characters),
        **_named("premium", here, there),
        **_named("bits_per_char", bits, characters),
        **{name: score[name] for name in ("spbleu", "spbleu_low", "spbleu_high")},
        **{kind: (score["errors"][kind] or 0) / score["sentences"] for kind in KINDS},
        "lost_letters": drawing.lost_letters(model, pairs["target"])[0],
    }


def _named(name: str, *sides: Sequence[float]) -> dict[str, float]:
    value, low, high, _ = intervals.ratio(*sides)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def nearest(own: np.ndarray, english: np.ndarray) -> np.ndarray:
    """Return how often the nearest of `POOL` English sentences is the translation.

    The array has a row per layer and a column per sentence. What is expected of random pools
    follows from the number of wrong sentences that are nearer than the translation.
    """
    from scipy.special import comb

    sides = np.stack([own, english])
    sides = sides - np.nanmean(sides, axis=2, keepdims=True)
    own, english = sides / np.linalg.norm(sides, axis=3, keepdims=True)
    close = own @ english.swapaxes(1, 2)
    right = np.diagonal(close, axis1=1, axis2=2)
    others = (~np.isnan(right[0])).sum() - 1  # sentences longer than the context are missing
    hits = comb(others - (close > right[..., None]).sum(axis=2), POOL - 1)
    return np.where(np.isnan(right), np.nan, hits / comb(others, POOL - 1))


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what predictions know of the languages of a diagnosis, indexed by their codes."""
    spoken = pd.DataFrame(map(get, frame["language"]), frame.index)
    found = pd.DataFrame(
        {
            "pretraining": spoken["pretraining"].astype(float),
            "indo_european": (spoken["family_1"] == "Indo-European").astype(float),
            "latin": (spoken["script"] == "Latn").astype(float),
            "tokens": np.log2(frame["premium"]),
            "bits": np.log2(frame["bits_premium"]),
            "translation": np.log2(1 + frame["spbleu"]),
            "alignment": frame["alignment"],
        }
    )
    return found.set_index(pd.Index(frame["language"]))


@cache
def examples() -> pd.DataFrame:
    """Return what predictions know of the languages of some bases, and what tuning brought.

    The frame has one row per base and language, with the `base`, the `quadrant` and the language's
    own score `after` tuning on it. It is shared and must not be changed.
    """
    recorded = pd.read_csv(RECORDED / "diagnosis.csv")
    brought = recorded.set_index("language")[["base", "quadrant", "after"]]
    return pd.concat([features(recorded), brought], axis=1)


def probabilities(known: pd.DataFrame, columns: Sequence[str] = USED) -> pd.DataFrame:
    """Return the probability of each quadrant, by models that have not seen the language.

    Args:
        known: What `features` returns, of each language once.
        columns: What the probabilities rest on. Defaults to `USED`.
    """
    rows = []
    for code, row in known[list(columns)].iterrows():
        seen = examples().drop(index=code, errors="ignore")
        model = quadrants.classifier(columns).fit(seen[row.index].to_numpy(), seen["quadrant"])
        rows.append(dict(zip(model.classes_, model.predict_proba([row])[0], strict=True)))
    return pd.DataFrame(rows, known.index)


def text(frame: pd.DataFrame) -> str:
    """Return a diagnosis for a terminal, with what it can say and what not."""
    methods = pd.read_csv(RECORDED / "diagnosis_methods.csv")
    methods = methods[methods["held_out"] == "base and language"].groupby("method")
    loss, worse = methods["log_loss"].mean(), methods["less_tokens_high"].min() >= 0
    worse = worse[list(FEATURES[1:])]
    template = (PACKAGE_DATA / "diagnosis.md").read_text("utf8")
    note = template.format(
        layer=frame.attrs["layer"],
        languages=examples().index.nunique(),
        bases=examples()["base"].nunique(),
        used=loss["family, script and all four"],
        tokens=loss["tokens"],
        plain=loss["family and script"],
        worse=", ".join(worse.index[worse]) or "none",
    )
    lost = frame.loc[frame["lost_letters"] > drawing.UNKNOWN, "language"]
    note += f" The tokenizer cannot represent {', '.join(lost)}." * bool(len(lost))
    shown = frame[[name for name in frame if not name.endswith(("_low", "_high"))]]
    return f"{shown.round(2).to_string(index=False)}\n\n{' '.join(note.split())}"
