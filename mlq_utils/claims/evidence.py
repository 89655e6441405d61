"""The numbers that speak for or against each claim of the paper; `claims` draws the verdicts.

Each function measures one thing, from the paper's tables (published), from a tokenizer's record or
from recorded runs of the mini world (trained), and returns numbers by name. Scores and changes are
in spBLEU, shares from 0 to 1.
"""

import dataclasses
import inspect
from functools import cache

import pandas as pd

from mlq_utils import corpora, languages, paper, quadrants, tokenization
from mlq_utils.experiments import studies
from mlq_utils.modeling.extension import Extension
from mlq_utils.scoring import intervals

Numbers = dict[str, float]
RISEN = 5.0
"""A score has risen when it is this much above the untuned model's (Table 9)."""
OVERTOKENISED = 0.9
"""Tokens a character from which a language counts as over-tokenised: the distribution has a gap."""


@cache
def _trained(study: str) -> pd.DataFrame:
    return studies.scores(study)


@cache
def _untuned() -> pd.Series:
    return _trained("untuned").set_index("target")["spbleu"]


def _named() -> list[str]:
    table = languages.table()
    return table[table["pretraining"] & (table["code"] != "en")]["code"].tolist()


@cache
def _every_target() -> pd.DataFrame:
    """Return mean changes: a row a target, a column a language tuned on."""
    wide = _trained("every_target").pivot_table(index="target", columns="tuned_on", values="spbleu")
    return wide.sub(_untuned(), axis=0)


@cache
def _ted() -> pd.DataFrame:
    return quadrants.assign(quadrants.published(), quadrants.threshold()).set_index("language")


@cache
def _mini() -> pd.DataFrame:
    """Return the mini world's quadrants by tuning seed."""
    scores = quadrants.trained(_trained("untuned"), _trained("by_language"))
    return quadrants.assign(scores, quadrants.threshold(_untuned()))


@cache
def _mini_mean() -> pd.DataFrame:
    """Return the mini world's quadrants by the mean of the seeds."""
    scores = _mini().groupby("language", sort=False).mean(numeric_only=True).reset_index()
    scores = scores.drop(columns=["seed", "bilingual_delta", "multilingual_delta"])
    return quadrants.assign(scores, quadrants.threshold(_untuned())).set_index("language")


@cache
def _table_12() -> pd.DataFrame:
    rows = paper.table(12).query("role == 'representative'")
    return rows.pivot(index="tuned_on", columns="target", values="spbleu")


# Section 3.1


def supported_published() -> Numbers:
    """Count the languages that rise after tuning on Alpaca (Table 9)."""
    risen = paper.table(9).query("delta > @RISEN")["target"]
    return {"risen": len(risen), "unnamed": len(set(risen) - set(_named())), "targets": 101}


def supported_trained() -> Numbers:
    """Count the languages that rise after tuning on English tasks."""
    risen = _every_target()["en"].pipe(lambda s: s.index[s > RISEN])
    return {
        "risen": len(risen),
        "unnamed": len(set(risen) - set(_named())),
        "targets": len(_every_target()),
    }


def afrikaans_trained() -> Numbers:
    """Return how far Afrikaans rises after tuning on ro, ms and no."""
    return _every_target().loc["af", ["ro", "ms", "no"]].to_dict()


def others_published() -> Numbers:
    """Count the other targets of Table 12 that rise after tuning on ro."""
    change = (_table_12().loc["ro"] - _table_12().loc["LLaMA"]).drop("ro")
    return {"up": int((change > 0).sum()), "risen": int((change > RISEN).sum()), "of": len(change)}


def others_trained() -> Numbers:
    """Count the other targets that rise after tuning on ro: those of pretraining, and all."""
    change = _every_target()["ro"].drop("ro")
    named = change[change.index.isin(_named())]
    return {
        "named": int((named > RISEN).sum()),
        "of_named": len(named),
        "risen": int((change > RISEN).sum()),
        "of": len(change),
    }


def consistency_published() -> Numbers:
    """Return the median rank correlation of two reciprocal models over Table 12's targets."""
    kinds = _ted()["quadrant"]
    rho = intervals.pairwise(_table_12().loc[kinds.index[kinds == "reciprocal"]].T)["rho"]
    return {"rho": rho.median(), "pairs": len(rho), "targets": _table_12().shape[1]}


def consistency_trained() -> Numbers:
    """Return rank correlations of the models tuned on ro, no and ms: all targets, and named."""
    wide = _trained("every_target").pivot_table(
        index="target", columns="tuned_on", values="spbleu"
    )[["ro", "no", "ms"]]
    named = wide[wide.index.isin(_named())]
    least, most = intervals.pairwise(wide)["rho"].min(), intervals.pairwise(named)["rho"].max()
    return {"all": least, "named": most}


def luo_trained() -> Numbers:
    """Count the targets that rise after tuning on luo, and on ro."""
    risen = (_every_target() > RISEN).sum()
    return {"luo": int(risen["luo"]), "ro": int(risen["ro"])}


# Section 3.2, Appendices D and E


def selfless_published() -> Numbers:
    """Count the rows of Table 1 whose own score does not rise while others' mean does."""
    rows = paper.table(1).pivot(index="tuned_on", columns="target", values="spbleu")
    others = rows["multilingual"] - quadrants.published()["multilingual_pre"].iloc[0]
    selfless = (rows["LG"] <= rows["llama"]) & (others > 0)
    return {"selfless": int(selfless.sum()), "models": len(rows)}


def selfless_trained() -> Numbers:
    """Count the languages whose own score falls while af and ro rise significantly."""
    mini = _mini_mean()
    falls = mini["bilingual_post"] < mini["bilingual_pre"]
    helps = mini["multilingual_delta"] > 0
    return {"selfless": int((falls & helps).sum()), "models": int(helps.sum())}


def equation_published() -> Numbers:
    """Count the languages of Table 2's Ted row that Equation 1 gives back from Table 12."""
    printed = paper.table(2).query("dataset == 'Ted'").set_index("language")["quadrant"]
    found = _ted()["quadrant"]
    return {"agree": int((found == printed[found.index]).sum()), "languages": len(found)}


def equation_trained() -> Numbers:
    """Count the languages of each quadrant in the mini world."""
    counts = _mini_mean()["quadrant"].value_counts()
    found = {name: int(counts.get(name, 0)) for name in quadrants.QUADRANTS}
    return found | {"populated": sum(count > 0 for count in found.values())}


def factor_published() -> Numbers:
    """Count stagnant languages where the significance factor is 20 (Figure 5)."""
    return _at_twenty(_ted(), quadrants.threshold())


def factor_trained() -> Numbers:
    """Count stagnant languages of the mini world where the significance factor is 20."""
    return _at_twenty(_mini_mean(), quadrants.threshold(_untuned()))


def _at_twenty(scores: pd.DataFrame, threshold: float) -> Numbers:
    found = quadrants.assign(scores, threshold, 20.0)["quadrant"]
    return {"stagnant": int((found == "stagnant").sum()), "languages": len(found)}


def mirror_published() -> Numbers:
    """Compare af and ro with the other ten targets of Table 12."""
    change = _table_12().drop("LLaMA") - _table_12().loc["LLaMA"]
    return _mirror(change)


def mirror_trained() -> Numbers:
    """Compare af and ro with the other representatives of Table 11, in the mini world."""
    wide = _trained("mirrored").pivot(index="tuned_on", columns="target", values="spbleu")
    codes = [code for code in paper.table(11)["language"] if code in wide]
    return _mirror(wide[codes] - _untuned()[codes])


def _mirror(change: pd.DataFrame) -> Numbers:
    two = change[list(quadrants.REFERENCE_TARGETS)].mean(axis=1)
    rest = change.drop(columns=list(quadrants.REFERENCE_TARGETS)).mean(axis=1)
    rho = intervals.rank_correlation(two, rest)
    # A tenth of a point: a change that a table with one decimal shows.
    same = (two > 0.1) == (rest > 0.1)
    return {
        "rho": rho["rho"],
        "low": rho["low"],
        "high": rho["high"],
        "same": int(same.sum()),
        "models": len(change),
    }


def stable_published() -> Numbers:
    """Count the languages that have one quadrant in all three rows of Table 2."""
    summary = quadrants.summarise(paper.table(2))
    return {"same": int(summary["strict"].notna().sum()), "languages": len(summary)}


def stable_trained() -> Numbers:
    """Count the languages that have one quadrant with all three tuning seeds."""
    found = _mini().groupby("language")["quadrant"].nunique()
    return {"same": int((found == 1).sum()), "languages": len(found)}


# Section 4.1, Appendices G and H


def _shares(assigned: pd.DataFrame, column: str, quadrant: str = "reciprocal") -> Numbers:
    flags = languages.table().assign(ie=lambda t: t["family_1"] == "Indo-European")
    flag = assigned["language"].map(flags.set_index("code")[column]).astype(bool)
    inside = assigned["quadrant"] == quadrant
    return {"inside": flag[inside].mean(), "outside": flag[~inside].mean(), "of": int(inside.sum())}


def _printed() -> pd.DataFrame:
    return paper.table(2).query("dataset != 'Summary'")


def relatives_published() -> Numbers:
    """Return the share of Indo-European among reciprocal languages and others (Tables 2, 8)."""
    return _shares(_printed(), "ie")


def relatives_trained() -> Numbers:
    """Return the same in the mini world."""
    return _shares(_mini_mean().reset_index(), "ie")


def exposed_published() -> Numbers:
    """Return the share of named languages among reciprocal ones and others (Table 2)."""
    return _shares(_printed(), "pretraining")


def exposed_trained() -> Numbers:
    """Return the same in the mini world."""
    return _shares(_mini_mean().reset_index(), "pretraining")


def embed_bilingual_published() -> Numbers:
    """Return Embed FT minus full FT at the least, middle and most pairs (Table 15)."""
    rows = paper.table(15).query("target != 'AVG'")
    wide = rows.pivot(index=["size", "target"], columns="strategy", values="spbleu")
    gap = (wide["embed"] - wide["full"]).groupby("size").mean()
    return {"least": gap.iloc[0], "worst_after": gap.iloc[1:].min(), "most": gap.iloc[-1]}


def embed_bilingual_trained() -> Numbers:
    """Return the same for the reciprocal languages of the mini world, own scores."""
    gap = _gap(_sizes("reciprocal_sizes", "itself"))
    return {"least": gap.iloc[0], "worst_after": gap.iloc[1:].min(), "most": gap.iloc[-1]}


def embed_multilingual_trained() -> Numbers:
    """Return mean scores of other languages by Embed FT and full FT, least and most pairs."""
    means = _sizes("reciprocal_sizes", "others").groupby(["strategy", "size"])["spbleu"].mean()
    sizes = sorted(set(means.index.get_level_values("size")))
    gap = _gap(_sizes("reciprocal_sizes", "others"))
    return {
        "embed": means["embed", sizes[-1]],
        "full_least": means["full", sizes[0]],
        "full": means["full", sizes[-1]],
        "gap": gap.iloc[-1],
    }


def _sizes(study: str, side: str) -> pd.DataFrame:
    """Return the runs of a study of sizes, each strategy at its own rate: "itself" or "others"."""
    frame = studies.sides(_trained(study))
    rates = frame["strategy"].map(studies.SPARING_RATES)
    own_rate = frame["learning_rate"].isna() | (frame["learning_rate"] == rates)
    return frame[own_rate & (frame["side"] == side)]


def _gap(scores: pd.DataFrame) -> pd.Series:
    """Return Embed FT minus full FT by size, the mean over languages and seeds."""
    means = scores.groupby(["size", "strategy"])["spbleu"].mean().unstack()
    return (means["embed"] - means["full"]).sort_index()


def languages_full_published() -> Numbers:
    """Return how full FT rises with the number of languages, and pairs (Table 3)."""
    rows = paper.table(3).query("setting == 'multilingual' and target == 'AVG'")
    full = rows[rows["strategy"] == "full"].sort_values("n_languages")
    embed = rows[rows["strategy"] == "embed"]["spbleu"]
    return {
        "rise": full["spbleu"].iloc[-1] - full["spbleu"].iloc[1],
        "pairs_times": full["size"].iloc[-1] / full["size"].iloc[1],
        "embed_range": embed.max() - embed.min(),
    }


def _mixed() -> pd.DataFrame:
    scores = _trained("mixtures")
    counts = scores["tuned_on"].str.count(r"\+") + 1
    return scores.assign(n_languages=counts)[
        scores.groupby("tuned_on")["target"].transform("nunique") > 1
    ]


def languages_full_trained() -> Numbers:
    """Return how full FT rises from 2 to 16 languages at one budget, and how Embed FT varies."""
    means = _mixed().groupby(["strategy", "n_languages"])["spbleu"].mean()
    embed = means["embed"].loc[2:]
    return {
        "rise": means["full", 16] - means["full", 2],
        "pairs_times": 1,
        "embed_range": embed.max() - embed.min(),
    }


def bilingual_better_published() -> Numbers:
    """Return multilingual minus bilingual full FT, both at 160k pairs, 16 languages (Table 3)."""
    rows = paper.table(3).query("target == 'AVG' and strategy == 'full' and size == 160000")
    found = rows.set_index("n_languages")["spbleu"]
    return {"difference": found[16] - found[1]}


def bilingual_better_trained() -> Numbers:
    """Return the same at one budget of pairs, targets that have a bilingual model each."""
    scores = _trained("mixtures").query("strategy == 'full'")
    own = scores[scores["tuned_on"] == scores["target"]].groupby("target")["spbleu"].mean()
    sixteen = scores[scores["tuned_on"].str.count(r"\+") == 15]
    return {"difference": (sixteen.groupby("target")["spbleu"].mean() - own).dropna().mean()}


def layers_published() -> Numbers:
    """Compare single layers with Embed FT (Table 14)."""
    rows = paper.table(14).query("target != 'AVG'")
    embed = rows[rows["strategy"] == "embed"]["spbleu"].mean()
    single = rows.dropna(subset="layer").groupby("layer")["spbleu"].mean()
    return {
        "low": single.iloc[: len(single) // 3].mean() - embed,
        "high": single.iloc[-(len(single) // 3) :].mean() - embed,
    }


def layers_trained() -> Numbers:
    """Compare the lowest and the highest single layer with Embed FT, tuned on Romanian."""
    means = _layers()
    return {"low": means["0"] - means["embed"], "high": means["3"] - means["embed"]}


def _layers() -> pd.Series:
    """Return means over Table 14's targets, tuned on Romanian, each at its sparing rate."""
    scores = _trained("single_layers").query("tuned_on == 'ro'")
    sparing = scores["learning_rate"] == studies.SPARING_RATES["layers"]
    scores = scores[sparing | (scores["strategy"] == "embed")]
    what = scores["layers"].where(scores["strategy"] == "layers", scores["strategy"])
    return scores["spbleu"].groupby(what).mean()


def lower_layers_published() -> Numbers:
    """Return layers 0-14 together minus Embed FT at the least and most pairs (Table 15)."""
    rows = paper.table(15).query("target == 'AVG'").set_index(["strategy", "size"])["spbleu"]
    gap = rows["layers 0-14"] - rows["embed"]
    return {"least": gap.iloc[0], "most": gap.iloc[-1]}


def lower_layers_trained() -> Numbers:
    """Return ranges of lower layers minus Embed FT, the worst and the best, tuned on Romanian."""
    means = _layers()
    ranges = means[means.index.str.contains("+", regex=False)] - means["embed"]
    return {"least": ranges.min(), "most": ranges.max()}


def understanding_published() -> Numbers:
    """Return Embed FT minus the better of full FT and LoRA, five understanding tasks (Table 16)."""
    rows = paper.table(16).query("task not in ('AVG', 'Flores-101') and training_data != 'none'")
    means = rows.groupby(["training_data", "strategy"])["score"].mean().unstack()
    gap = means["embed"] - means[["full", "lora"]].max(axis=1)
    return {"worst": gap.min(), "best": gap.max()}


# Section 4.2


def errors_trained() -> Numbers:
    """Return shares of errors on altruistic languages, before and after tuning on themselves."""
    kinds = _mini_mean()["quadrant"]
    codes = kinds.index[kinds == "altruistic"]
    before, runs = _trained("untuned"), _trained("by_language")
    before = before[before["target"].isin(codes)]
    tuned = runs[runs["target"].isin(codes) & (runs["target"] == runs["tuned_on"])]
    return {
        f"{kind}_{when}": frame[kind].sum() / frame["sentences"].sum()
        for when, frame in (("before", before), ("after", tuned))
        for kind in ("source_copy", "oscillation", "off_target")
    }


def overlap_tokenizer() -> Numbers:
    """Correlate the paper's overlap with English and the multilingual change of Table 12."""
    record = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    shares = record.set_index("language")["of_language"]
    return _correlated(shares, _ted()["multilingual_delta"])


def overlap_trained() -> Numbers:
    """Correlate the paper's overlap with English and the multilingual change in the mini world."""
    from mlq_utils import modeling

    texts = corpora.texts("cldr", "test", 200)
    words = tokenization.analyse(tokenization.load(modeling.MINI), texts).set_index("language")
    return _correlated(words["of_language"], _mini_mean()["multilingual_delta"])


def _correlated(shares: pd.Series, change: pd.Series) -> Numbers:
    return intervals.rank_correlation(shares[change.index], change).to_dict()


def little_data_published() -> Numbers:
    """Return gains of full FT on the least data, and of the other settings (Table 4)."""
    rows = paper.table(4).query("tuned_on != 'AVG'")
    means = rows.groupby(["strategy", "size", "measure"], dropna=False)["spbleu"].mean().unstack()
    gains = means.drop("untuned") - means.loc["untuned"].iloc[0]
    return _little(gains["bilingual"], gains["multilingual"])


def little_data_trained() -> Numbers:
    """Return the same for the altruistic languages of the mini world; others are `WATCHED`."""
    names = list(studies.ALTRUISTIC_HERE)
    gains = {}
    for side, targets in (("itself", names), ("others", _others())):
        scores = _sizes("altruistic_sizes", side)
        means = scores[scores["tuned_on"].isin(names)].groupby(["strategy", "size"])["spbleu"]
        gains[side] = means.mean() - _untuned()[targets].mean()
    return _little(gains["itself"], gains["others"])


def _little(own: pd.Series, others: pd.Series) -> Numbers:
    full, helped = own.loc["full"].sort_index(), others.loc["full"].sort_index()
    return {
        "own": full.iloc[0],
        "others": helped.iloc[0],
        "own_much": full.iloc[-1],
        "others_much": helped.iloc[-1],
        "own_embed": own.loc["embed"].max(),
        "others_best": others.max(),
    }


def _others() -> list[str]:
    return [code for code in studies.WATCHED if code != "af"]


# Section 4.3, Appendix F


def overtokenised_tokenizer() -> Numbers:
    """Count the over-tokenised among languages that Table 2 prints as stagnant, and as others."""
    record = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    length = record.set_index("language")["tokens_per_char"]
    return _over(_printed(), length >= OVERTOKENISED)


def overtokenised_trained() -> Numbers:
    """Count those that fall to bytes among the mini world's stagnant languages, and others."""
    from mlq_utils import modeling

    texts = corpora.texts("cldr", "test", 200)
    words = tokenization.analyse(tokenization.load(modeling.MINI), texts).set_index("language")
    return _over(_mini_mean().reset_index(), words["tokens_per_char"] >= OVERTOKENISED)


def _over(assigned: pd.DataFrame, over: pd.Series) -> Numbers:
    flag = assigned["language"].map(over).astype(bool)
    kind = assigned["quadrant"]
    return {
        "over": int(flag[kind == "stagnant"].sum()),
        "stagnant": int((kind == "stagnant").sum()),
        "altruistic": flag[kind == "altruistic"].mean(),
    }


def more_data_published() -> Numbers:
    """Return gains of full FT and LoRA from the least to the most pairs (Table 13)."""
    rows = paper.table(13).dropna(subset="size")
    high = rows["ratio"] > 5
    return _data(rows[high], rows[~high])


def more_data_trained() -> Numbers:
    """Return the same for the mini world's languages of Table 5."""
    rows = _trained("stagnant_sizes")
    high = rows["target"].isin(studies.OVERTOKENISED_FOUR)
    return _data(rows[high], rows[~high])


def _data(high: pd.DataFrame, rest: pd.DataFrame) -> Numbers:
    def gain(rows: pd.DataFrame, strategy: str) -> tuple[float, float]:
        means = rows[rows["strategy"] == strategy].groupby("size")["spbleu"].mean().sort_index()
        return means.iloc[0], means.iloc[-1]

    least, most = gain(high, "full")
    others = gain(rest, "full")
    return {
        "least": least,
        "full": most - least,
        "rest": others[1] - others[0],
        "rest_least": others[0],
        "lora": gain(high, "lora")[1],
    }


def vocabulary_published() -> Numbers:
    """Count the settings of Table 6 in which extending the vocabulary gains."""
    rows = paper.table(6).dropna(subset="spbleu")
    change = rows["spbleu"] - rows["baseline"]
    best = rows.loc[rows.groupby(["target", "source", "vocabulary_size"])["spbleu"].idxmax()]
    return {
        "better": int((change > 0).sum()),
        "settings": len(rows),
        "change": change.median(),
        "sp_best": int((best["method"] == "SP").sum()),
        "groups": len(best),
    }


def vocabulary_trained() -> Numbers:
    """Count the extensions that gain over none in the mini world, and the wins of the methods."""
    rows = extensions()
    ways = rows[rows["target"] == studies.OVERTOKENISED]
    best = ways.loc[ways.groupby(["pieces", "start", "ranked"])["spbleu"].idxmax()]
    return {
        "better": int((rows["change"] > 0).sum()),
        "settings": len(rows),
        "change": rows["change"].median(),
        "sp_best": int((best["method"] == "sp").sum()),
        "groups": len(best),
    }


def extensions() -> pd.DataFrame:
    """Return runs with an extended vocabulary, and their change against those without.

    Returns:
        A row a language and extension of the study `extended` under a scaled limit: `target`, the
        fields of `extension.Extension`, and over its `seeds` (their number) the mean `spbleu`,
        `spbleu_plain` and `change`.
    """
    plain = _trained("shortened").query("cap.isna() and shorten.isna()")
    plain = plain[["target", "size", "seed", "spbleu"]]
    rows = _trained("extended").query("cap.isna()")
    rows = rows.merge(plain, on=["target", "size", "seed"], suffixes=("", "_plain"))
    ways = ["target", *(field.name for field in dataclasses.fields(Extension))]
    means = rows.groupby(ways, as_index=False, sort=False).agg(
        seeds=("seed", "size"), spbleu=("spbleu", "mean"), spbleu_plain=("spbleu_plain", "mean")
    )
    return means.assign(change=means["spbleu"] - means["spbleu_plain"])


def same_prefix_tokenizer() -> Numbers:
    """Count the first bytes of over-tokenised characters, by language (LLaMA, FLORES-200)."""
    rows = tokenization.recorded("shortening").query("kind == 'one token'")
    first = rows.set_index("language")["prefix_bytes"].str.upper()
    return {"e0": int((first == "E0").sum()), "languages": len(first), "bytes": first.nunique()}


def lossless_tokenizer() -> Numbers:
    """Return the least share of sentences restored after shortening, and the median saving."""
    rows = tokenization.recorded("shortening").query("kind == 'one token'")
    saving = 1 - rows["shortened_tokens_per_sentence"] / rows["tokens_per_sentence"]
    return {"restored": rows["restored"].min(), "saving": saving.median(), "languages": len(rows)}


def shortening_published() -> Numbers:
    """Return Table 7's gain, and the gain that the limit on length predicts alone."""
    printed = paper.table(7).pivot(index="target", columns="setting", values="value").drop("AVG")
    rows = tokenization.recorded("shortening").query("kind == 'one token'").set_index("language")
    brevity = rows["shortened_brevity"] / rows["brevity"]
    predicted = (printed["full"] * (brevity.loc[printed.index] - 1)).mean()
    return {"gain": (printed["shorten"] - printed["full"]).mean(), "predicted": predicted}


def shortening_trained() -> Numbers:
    """Return what shortening gains in the mini world under a limit scaled to the language."""
    scores = _trained("shortened").query("cap.isna()")
    scores = scores.assign(short=scores["shorten"].notna())
    wide = scores.pivot_table(index=["target", "size"], columns="short", values="spbleu")
    gain = intervals.mean(wide[True] - wide[False])
    numbers = {"gain": gain["mean"], "low": gain["low"], "high": gain["high"]}
    return numbers | {"settings": len(wide), "seeds": scores["seed"].nunique()}


MEASUREMENTS = {
    name: function
    for name, function in list(globals().items())
    if inspect.isfunction(function) and function.__module__ == __name__ and name[0] != "_"
}
