"""What the paper prints of each strategy at each data size, and what follows for a language.

Comparable are runs on languages that have the quadrant in question in some dataset of Table 2. A
run on the language itself counts alone. Otherwise the three nearest runs count: those of the same
branch of a family come first, then the same script, the same family, and similar tokens per
character. The paper's own strategy is advised unless another one is more than `MARGIN` better.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from mlq_utils import languages, paper, tokenization
from mlq_utils.languages import Language
from mlq_utils.quadrants.assignment import REFERENCE_TARGETS, published

NAMES = {"embed": "Embed FT", "full": "full FT", "lora": "LoRA", "layers 0-14": "FT of layers 0-14"}
GUIDANCE = {
    "reciprocal": "Embed FT",
    "altruistic": "full FT on little data (in Table 4 more data helps them and harms others)",
    "selfish": "nothing",
    "stagnant": "shortened byte sequences",
}
"""What the paper recommends for the languages of each quadrant (Section 4.4)."""
MARGIN = 2.0
"""Up to this difference in spBLEU two strategies count as equal, since a printed score is of one
tuning seed and one test set."""


@cache
def runs() -> pd.DataFrame:
    """Return the printed scores of LLaMA-7B tuned on one language.

    Returns:
        A frame indexed by strategy, size (in sentence pairs, at most so many in Tables 1 and 12)
        and language: spBLEU of the language (`own`), the mean of af and ro (`others`, missing if
        not printed) and `tables`. If several tables print a score, the first of 4, 1, 15, 13, 5, 3
        and 12 counts.
    """
    names = {"bilingual": "own", "LG": "own", "spbleu": "own", "bilingual_post": "own"}
    names |= {"multilingual": "others", "multilingual_post": "others"}
    names |= {"tuned_on": "language", "target": "language"}
    keys, embed = ["strategy", "size", "language"], {"strategy": "embed", "size": 10_000}
    four = paper.table(4).pivot_table("spbleu", ["strategy", "size", "tuned_on"], "measure")
    one = paper.table(1).pivot(index="tuned_on", columns="target", values="spbleu")
    frames = {4: four.reset_index(), 1: one.reset_index().assign(**embed)}
    frames |= {n: paper.table(n) for n in (15, 13, 5, 3)} | {12: published().assign(**embed)}
    found = pd.concat([f.rename(columns=names).assign(table=n) for n, f in frames.items()])
    found = found[found["language"].isin(languages.codes()) & found["strategy"].isin(NAMES)]
    groups = found[found["setting"] != "multilingual"].groupby(keys)
    return groups[["own", "others"]].first().assign(tables=groups["table"].agg(tuple))


@cache
def _length() -> pd.Series:
    llama = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    return np.log2(llama.set_index("language")["tokens_per_char"])


def nearest(language: str | Language, codes: Iterable[str]) -> list[str]:
    """Return the language alone if it is among the codes, or else the three nearest codes."""
    mine, codes, length = languages.get(language), list(codes), _length()

    def distance(code: str) -> tuple:
        its = languages.get(code)
        family = its.family_1 != mine.family_1
        branch = family or its.family_2 != mine.family_2
        longer = length[code] - length.get(mine.code, length[code])
        return branch, its.script != mine.script, family, abs(longer)

    return [mine.code] if mine.code in codes else sorted(codes, key=distance)[:3]


def plan(language: str | Language, likely: Sequence[str], pairs: int) -> dict[str, str]:
    """Return `strategy`, `expect` and `paper` of `Advice` for a language of the likely quadrants.

    They rest on runs on `pairs` sentence pairs, or on the largest printed number below. The first
    quadrant decides what the paper recommends.
    """
    printed, table = runs(), paper.table(2)
    sizes = sorted(printed.index.unique("size"))
    size = int(max((n for n in sizes if n <= pairs), default=sizes[0]))
    code = languages.get(language).code
    alike = {code, *table[table["quadrant"].isin(likely)]["language"]}
    at = printed[printed.index.isin(alike, level="language")].xs(size, level="size")
    # Table 12 is of another corpus, so its scores are not compared with those of other tables.
    own = at["own"].where(at["tables"] != (12,)).unstack("strategy").reindex(columns=list(NAMES))
    gains = own.sub(own["full"], axis=0)
    gain = gains.agg(lambda each: each[nearest(language, each.dropna().index)].mean())
    best, recommended = gain.idxmax(), "embed" if likely[0] == "reciprocal" else "full"
    chosen = recommended if gain[best] <= gain[recommended] + MARGIN else best
    strategy = NAMES[chosen]
    expect = _words(printed.loc[chosen], nearest(language, at.loc[chosen].index), size)
    if gain.isna().any():
        missing = " and ".join(gain.index[gain.isna()].map(NAMES))
        expect += f"; for such languages nothing is printed of {missing} at this size"
    followed = "; ".join(f"{GUIDANCE[quadrant]} for {quadrant} languages" for quadrant in likely)
    if chosen != recommended:
        lower = gain[chosen] - gain[recommended]
        why = "not printed" if np.isnan(lower) else f"{lower:.1f} spBLEU worse"
        followed += f" ({NAMES[recommended]} is {why} at this size)"
    shortening = tokenization.recorded("shortening").query("kind == 'one token'")
    cut = shortening.set_index("language")["over_cap"].get(code, 0.0)
    if cut >= 0.05:
        limit = f"LLaMA's tokenizer makes more than 256 tokens of {cut:.0%} of its sentences"
        strategy += f", with shortened byte sequences if a limit cuts them ({limit})"
    elif "stagnant" in likely:
        followed += " (its bytes are too few to shorten, or hardly ever reach a limit)"
    return {"strategy": strategy, "expect": expect, "paper": followed}


def _words(printed: pd.DataFrame, codes: list[str], size: int) -> str:
    """Return in words which scores are printed of the codes at this size and at the largest one."""
    nine, at = paper.table(9).set_index("target"), printed.loc[size].loc[codes]
    name = {code: languages.get(code).name for code in (*codes, *REFERENCE_TARGETS)}
    words = [f"{name[c]} from {nine['llama'][c]:.1f} to {at['own'][c]:.1f}" for c in codes]
    others = [f"{score:.1f}" for score in at["others"].dropna()]
    both = " and ".join(name[code] for code in REFERENCE_TARGETS)
    start = f"{both} from {nine['llama'][list(REFERENCE_TARGETS)].mean():.1f} to "
    words.append(start + ", ".join(others) if others else "other languages not printed")
    tables = ", ".join(map(str, sorted({table for tables in at["tables"] for table in tables})))
    text = f"with {size:,} pairs {', '.join(words)} (Table{'s' * (',' in tables)} {tables})"
    wide = printed["own"].unstack("size").loc[codes].dropna(axis=1)
    if wide.columns[-1] > size:
        more = ", ".join(f"{name[code]} {wide.iloc[:, -1][code]:.1f}" for code in codes)
        text += f"; with {int(wide.columns[-1]):,} pairs {more}"
    return text
