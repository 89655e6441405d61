"""Load parallel text, and draw pairs for tuning from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import languages
from mlq_utils.corpora import cldr, readers, releases
from mlq_utils.corpora.releases import CORPORA, NAMES
from mlq_utils.data import one_of, sha256
from mlq_utils.languages import Language


def load(name: str, language: str | Language, split: str, **options: Any) -> pd.DataFrame:
    """Return English sentences and their translations.

    Args:
        name: One of `NAMES`.
        language: A language, as `languages.get` takes it. "en" gives each source as its own target.
        split: A split of the corpus, see `CORPORA`.
        **options: `size` and `seed` of cldr, see `cldr.pairs`. Other corpora have no options.

    Returns:
        A frame with columns `source` and `target`, one row per sentence. Its `attrs` describe the
        corpus, and give the number of `pairs` and the SHA-256 of each of the `files`.

    Raises:
        ValueError: The name, language, split or option is unknown, the corpus lacks the language,
            or a file is damaged (the message gives the line or the counts).
        FileNotFoundError: A folder or a file in it is missing.
        ConnectionError: The corpus must be downloaded and cannot be.
    """
    corpus = CORPORA[one_of("corpus", name, NAMES)]
    code = releases.code_in(name, language)
    one_of(f"split of {name}", split, corpus.splits)
    for option in options:
        one_of(f"option of {name}", option, ("size", "seed") if name == "cldr" else ())
    if name == "cldr":
        frame = cldr.pairs(language, split, **options)
        frame.attrs = {"size": len(frame), "seed": options.get("seed", 0)}
    else:
        paths = releases.fetched(name, releases.file_names(name, language, split))
        rows = list(readers.pairs(corpus, paths, code, split))
        if not rows:
            spoken = languages.get(language).name
            raise ValueError(f"{paths[-1]} has no pairs of English and {spoken}")
        frame = pd.DataFrame(rows, columns=["source", "target"])
        frame.attrs = {"files": {path.name: sha256(path) for path in paths}}
    frame.attrs |= {"corpus": name, "split": split, "pairs": len(frame)}
    frame.attrs["language"] = languages.get(language).code
    frame.attrs |= about(name)
    return frame


def about(name: str) -> dict[str, str]:
    """Return what the `attrs` of text say of its corpus."""
    corpus = CORPORA[name]
    return {key: getattr(corpus, key) for key in ("description", "version", "licence")}


def training_pairs(
    names: str | Sequence[str],
    language: str | Language,
    size: int,
    seed: int = 0,
    *,
    split: str = "train",
) -> pd.DataFrame:
    """Draw pairs for tuning from one corpus or from several together.

    Repeated pairs are left out, and pairs with a side that occurs in the FLORES-200 devtest.
    Sentences are compared by their letters and digits alone, because TED's are tokenised. If fewer
    than `size` pairs are left, all are taken, as in the paper (Appendix E).

    Args:
        names: Corpora that have the split. Those that lack the language are skipped if another has
            it. The paper's second dataset is `("wikimatrix", "news_commentary")`.
        language: A language, as `languages.get` takes it.
        size: Largest number of pairs.
        seed: Random seed for sampling and shuffling the pairs.
        split: A split of each corpus.

    Returns:
        A frame as `load` returns it, whose first rows are those of a smaller size with the same
        seed. Its `attrs` also count the pairs `read`, `repeated` and `in_evaluation`.

    Raises:
        ValueError: No corpus has the language, a corpus lacks the split, `size` is less than 1, or
            no pair is left.
        FileNotFoundError, ConnectionError: As for `load`.
    """
    names, spoken = [names] if isinstance(names, str) else list(names), languages.get(language)
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    for name in names:
        one_of(f"split of {name}", split, CORPORA[one_of("corpus", name, NAMES)].splits)
    having = [name for name in names if languages.covers(name, spoken)]
    if not having:
        raise ValueError(f"{' and '.join(names)} have no {spoken.name}")
    frames = [load(name, language, split, **composed(name, size, seed)) for name in having]
    frame = pd.concat(frames, ignore_index=True)
    keys = frame.apply(sentence_keys)
    repeated = keys.duplicated()
    known = load("flores200", language, "devtest").apply(sentence_keys)
    seen = keys.isin({*known["source"], *known["target"]} - {""}).any(axis=1) & ~repeated
    left = frame[~repeated & ~seen]
    if left.empty:
        raise ValueError(f"no pair of {' and '.join(having)} in {language!r} is left to tune on")
    drawn = draw(left, size, seed)
    drawn.attrs = frames[0].attrs | {
        "corpus": "+".join(having),
        "read": len(frame),
        "repeated": int(repeated.sum()),
        "in_evaluation": int(seen.sum()),
        "size": size,
        "seed": seed,
        "pairs": len(drawn),
    }
    return drawn


def composed(name: str, size: int | None, seed: int) -> dict[str, int | None]:
    """Return the options of cldr, which is composed as asked. A release is read whole."""
    return {"size": size, "seed": seed} if name == "cldr" else {}


def sentence_keys(sentences: pd.Series) -> pd.Series:
    """Return the letters and digits of each sentence, in one case and width."""
    plain = sentences.str.normalize("NFKC").str.casefold()
    return plain.map(lambda sentence: "".join(filter(str.isalnum, sentence)))


def draw(frame: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Return up to `size` rows, drawn without replacement.

    With the same seed, the rows of a smaller size are the first of those of a larger one.
    """
    order = np.random.default_rng(seed).permutation(len(frame))[:size]
    return frame.iloc[order].reset_index(drop=True)
