"""Which text a run is tuned on, which it is tested on, and which it only reads."""

import math
from typing import Any

import pandas as pd

from mlq_utils import corpora, languages
from mlq_utils.experiments.spec import TASKS, TEST_SEED, Spec
from mlq_utils.modeling import Model, prompts

TASKS_SEED = 1_000_001
"""Random seed for the English tasks of a panel, which no run is tuned on."""
MIN_STEPS = 10
"""Fewest steps of training on own pairs, which are those of the mini world's warm-up."""
UNKNOWN = 0.05
"""Largest share of the letters of own pairs that a tokenizer may lack."""


def tuning_data(spec: Spec) -> pd.DataFrame:
    """Return the prompts and targets to tune on, with those of the panel that are replayed."""
    frame, parts = _own_data(spec), []
    panel = [code for code in spec.panel if code != TASKS]
    share, rest = divmod(spec.replay, len(panel) or 1)
    pairs = {code: share + (n < rest) for n, code in enumerate(panel)}
    if tasks := pairs.pop("en", 0):
        parts.append(_english(spec, tasks, spec.seed))
    if pairs := {code: size for code, size in pairs.items() if size}:
        parts.append(_mixture(spec, pairs))
    whole = pd.concat([frame, *parts], ignore_index=True)
    whole.attrs = frame.attrs | ({"replayed": spec.replay} if parts else {})
    return whole


def _own_data(spec: Spec) -> pd.DataFrame:
    if spec.languages == ("en",):
        return _english(spec, spec.size, spec.seed)
    if spec.pairs:
        kept = own_pairs(spec)
        drawn = corpora.draw(kept, spec.size, spec.seed)
        frame = prompts.tuning(drawn, spec.spoken(spec.own), spec.into_english)
        counts = {"pairs": len(drawn), **kept.attrs}
        frame.attrs = {name: {spec.own: value} for name, value in counts.items()}
        return frame
    share, rest = divmod(spec.size, len(spec.languages))
    pairs = {spec.spoken(code): share + (n < rest) for n, code in enumerate(spec.languages)}
    return _mixture(spec, pairs)


def _english(spec: Spec, size: int, seed: int) -> pd.DataFrame:
    tasks = prompts.english_tasks if spec.corpus[0] == "cldr" else prompts.alpaca
    return tasks(size, seed)


def _mixture(spec: Spec, pairs: dict[Any, int]) -> pd.DataFrame:
    corpus = spec.corpus[0] if len(spec.corpus) == 1 else spec.corpus
    return prompts.mixture(pairs, corpus=corpus, seed=spec.seed, into_english=spec.into_english)


def own_pairs(spec: Spec) -> pd.DataFrame:
    """Return the cleaned pairs of a run that are not tested on.

    Raises:
        ValueError: Too few are left for `MIN_STEPS` steps.
    """
    script = languages.get(spec.spoken(spec.own)).script
    tested = pairs_to_test(spec, spec.own) if spec.own in spec.targets else None
    kept = corpora.clean(spec.pairs.read(), script, tested)
    used = min(len(kept), spec.size)
    steps = math.ceil(used / spec.batch_size) * spec.epochs
    if spec.languages and steps < MIN_STEPS:
        raise ValueError(
            f"{spec.pairs.file}: {used} of {kept.attrs['read']} pairs are left to tune on (left "
            f"out: {counted(kept.attrs['left_out'])}). They make {steps} steps, and fewer than "
            f"{MIN_STEPS} teach nothing: bring more pairs, or more epochs of smaller batches"
        )
    return kept


def sentences(spec: Spec, target: str) -> pd.DataFrame:
    """Return the sentences that a target is scored on, as `source` and `target`."""
    return _directed(spec, pairs_to_test(spec, target))


def pairs_to_test(spec: Spec, target: str) -> pd.DataFrame:
    """Return pairs of English and a target."""
    (name, split), language = spec.test, spec.spoken(target)
    if target == spec.own and spec.test_pairs:
        found = spec.test_pairs.read()
        return found[found.apply(lambda side: side.str.strip() != "").all(axis=1)].head(
            spec.test_size
        )
    if target == spec.own and spec.held_out:
        kept = corpora.clean(spec.pairs.read(), languages.get(language).script)
        return corpora.draw(kept, spec.test_size, TEST_SEED)
    if name == "cldr":
        return corpora.load(name, language, split, size=spec.test_size, seed=TEST_SEED)
    return corpora.load(name, language, split).head(spec.test_size)


def untested(spec: Spec, target: str) -> pd.Series:
    """Return text, none of it tested, that shows how long and in which words a target is written.

    There is none of a language that has only a test set.
    """
    language = spec.spoken(target)
    if target == spec.own and spec.pairs:
        frame = own_pairs(spec)
    elif not languages.covers(name := words_corpus(spec), language):
        return pd.Series(dtype=str)
    elif name == "cldr":
        frame = corpora.load("cldr", language, "train", size=200, seed=TEST_SEED)
    else:
        frame = corpora.load("flores200", language, "dev")
    return _directed(spec, frame)["target"]


def texts_to_read(spec: Spec, code: str) -> pd.DataFrame:
    """Return pairs of English and a language of the panel, or its English tasks."""
    if code == TASKS:
        return _english(spec, spec.test_size, TASKS_SEED)
    return pairs_to_test(spec, code)


def _directed(spec: Spec, pairs: pd.DataFrame) -> pd.DataFrame:
    swapped = {"source": "target", "target": "source"}
    return pairs.rename(columns=swapped) if spec.into_english else pairs


def words_corpus(spec: Spec) -> str:
    """Return the corpus whose words tell languages apart."""
    return "cldr" if spec.test[0] == "cldr" else "flores200"


def lost_letters(base: Model, texts: pd.Series) -> tuple[float, set[str]]:
    """Return the share of the letters of texts that a tokenizer cannot represent, and which."""
    some = texts.head(200).tolist()
    back = set("".join(map(base.tokenizer.decode, base.tokenizer.encode(some))).casefold())
    letters = [letter for letter in "".join(some).casefold() if letter.isalpha()]
    lost = [letter for letter in letters if letter not in back]
    return len(lost) / max(1, len(letters)), set(lost)


def check_letters(base: Model, texts: pd.Series) -> None:
    """Refuse a tokenizer that cannot represent the letters of texts in the language."""
    share, lost = lost_letters(base, texts)
    if share > UNKNOWN:
        raise ValueError(
            f"the tokenizer of {base.name} has no tokens for {share:.0%} of the letters of your "
            f"language, such as {' '.join(sorted(lost)[:8])}: choose a base that has, or with bytes"
        )


def counted(counts: dict[str, int]) -> str:
    """Return in words how many pairs were left out, and why."""
    named = [f"{number} {why.replace('_', ' ')}" for why, number in counts.items() if number]
    return ", ".join(named) or "none"
