"""Parallel text, English to each language: one `load` for every corpus.

    load("flores200", "ro", "devtest")          # the official release, or a local copy
    load("cldr", "ro", "train", size=600)       # composed on the spot, nothing to download
    monolingual("mc4", "km", 5000)              # text in one language, for vocabularies

Where files are looked for, and what is downloaded: see `flores`, `released` and `mc4`.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import babel
import numpy as np
import pandas as pd
from babel import localedata
from babel.core import get_cldr_version

from mlq_utils import languages
from mlq_utils.corpora import cldr, flores, mc4, released
from mlq_utils.data import downloads as _downloads
from mlq_utils.data import one_of
from mlq_utils.data.downloads import cache_folder


def load(
    name: str,
    language: str,
    split: str,
    *,
    data: str | os.PathLike | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return English sentences and their translation.

    Args:
        name: One of `NAMES`.
        language: The paper's code; "en" gives each source as its own target.
        split: One of the corpus's, see `CORPORA`: "devtest" of flores200, "train" of cldr.
        data: A folder searched before `MLQ_DATA`, the cache and the network.
        **options: For cldr `size` (pairs) and `seed`, see `cldr.pairs`; for wikimatrix `margin`,
            the least that is kept (`released.MARGIN`).

    Returns:
        A frame with columns `source` and `target`, one row a sentence. Its `attrs` say where it
        comes from: corpus, language, split, pairs, description, version, licence; for FLORES
        `source_sha256` and `target_sha256` of the two files, for cldr the options used, for others
        the SHA-256 of each of the `files`.

    Raises:
        ValueError: Unknown name, language, split or option, a language that the corpus lacks, or a
            damaged file (named, with the line or the counts).
        FileNotFoundError: A folder or a file in it is missing.
        ConnectionError: The corpus must be downloaded and cannot be.
    """
    corpus = CORPORA[one_of("corpus", name, CORPORA)]
    record = languages.get(language)
    one_of("language of " + name, language, languages.codes(name))
    one_of(f"split of {name}", split, corpus.splits)
    for option in options:
        one_of(f"option of {name}", option, corpus.options)
    frame = corpus.load(record, split, data, **options)
    frame.attrs |= {
        "corpus": name,
        "language": language,
        "split": split,
        "pairs": len(frame),
        "description": corpus.description,
        "licence": corpus.licence,
    }
    return frame


def find(name: str, data: str | os.PathLike | None = None) -> Path | None:
    """Return the folder that `load` would read, without downloading anything.

    Args:
        name: One of `NAMES`.
        data: A folder searched before `MLQ_DATA` and the cache.

    Returns:
        The corpus's folder (for cldr Babel's own), or None where it would have to be downloaded.

    Raises:
        ValueError: Unknown name.
        FileNotFoundError: The folder given, or `MLQ_DATA`, does not exist.
    """
    return CORPORA[one_of("corpus", name, CORPORA)].find(data)


def training_pairs(
    names: str | Sequence[str],
    language: str,
    size: int,
    seed: int = 0,
    *,
    split: str = "train",
    unlike: Sequence[tuple[str, str]] = (("flores200", "devtest"),),
    data: str | os.PathLike | None = None,
) -> pd.DataFrame:
    """Draw pairs to tune on from a corpus, or from several together.

    Repeated pairs, and pairs with a side that occurs in an evaluation set, are left out; sentences
    are compared by their letters and digits alone, since TED's are tokenised. Of the rest at most
    `size` are drawn without replacement, all where there are fewer, as in the paper (Appendix E).
    The pairs of a smaller size are the first of those of a larger one with the same seed.

    Args:
        names: Corpora that have the split; the paper's second dataset is
            `("wikimatrix", "news_commentary")`. One that lacks the language is passed over where
            another has it.
        language: The paper's code.
        size: How many pairs at most.
        seed: Decides which, and their order.
        split: A split of each.
        unlike: Evaluation sets, each a corpus and a split; those that lack the language are passed
            over.
        data: As in `load`.

    Returns:
        A frame as `load` returns it. Its `attrs` add to `corpus` and `pairs` what became of the
        others: `read`, `repeated`, `in_evaluation`, and the `size` asked for.

    Raises:
        ValueError: No corpus has the language, a corpus has no such split, `size` is less than
            1, or nothing is left.
        FileNotFoundError, ConnectionError: As in `load`.
    """
    names = [names] if isinstance(names, str) else list(names)
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    for name in names:
        one_of(f"split of {name}", split, CORPORA[one_of("corpus", name, CORPORA)].splits)
    having = [name for name in names if languages.get(language).code in languages.codes(name)]
    if not having:
        raise ValueError(f"{' and '.join(names)} have no {languages.get(language).name}")
    frames = [load(name, language, split, data=data, **_drawn(name, size, seed)) for name in having]
    frame = pd.concat(frames, ignore_index=True)
    known = evaluation_keys(language, data, unlike)
    keys = pd.DataFrame({column: sentence_keys(frame[column]) for column in frame})
    repeated = keys.duplicated()
    seen = keys.isin(known).any(axis=1) & ~repeated
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


def evaluation_keys(
    language: str,
    data: str | os.PathLike | None,
    sets: Sequence[tuple[str, str]] = (("flores200", "devtest"),),
) -> set[str]:
    """Return the keys of all sentences of evaluation sets, in English and the language."""
    return {
        key
        for name, split in sets
        if language in languages.codes(name)
        for column in ("source", "target")
        for key in sentence_keys(load(name, language, split, data=data)[column])
        if key
    }


def draw(frame: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Return rows drawn without replacement, all where there are fewer than `size`.

    Those of a smaller size are the first of those of a larger one with the same seed.
    """
    order = np.random.default_rng(seed).permutation(len(frame))[:size]
    return frame.iloc[order].reset_index(drop=True)


def _drawn(name: str, size: int, seed: int) -> dict[str, int]:
    """Return the options of a corpus that is composed as asked; a released one is read whole."""
    return {"size": size, "seed": seed} if "size" in CORPORA[name].options else {}


def sentence_keys(sentences: Iterable[str]) -> list[str]:
    """Return each sentence's letters and digits, in one case and width."""
    plain = (unicodedata.normalize("NFKC", sentence).casefold() for sentence in sentences)
    return ["".join(filter(str.isalnum, sentence)) for sentence in plain]


def monolingual(
    name: str,
    language: str,
    size: int,
    seed: int = 0,
    *,
    data: str | os.PathLike | None = None,
) -> pd.Series:
    """Return text in one language, such as a vocabulary is learned from (Section 4.3, Table 6).

    Args:
        name: "mc4", whose lines are read until there are enough; or a key of `TEXTS`, whose
            sentences are drawn: the paper takes mC4 and the dev set of FLORES-101.
        language: The paper's code.
        size: How many lines at most; all where there are fewer.
        seed: Decides which.
        data: As in `load`.

    Returns:
        A Series `text`, one row a line or sentence. Its `attrs` say where it comes from, as those
        of `load`, with `lines` in the place of `pairs`.

    Raises:
        ValueError: Unknown name or language, one that the corpus lacks, a size below 1, or a
            damaged file.
        FileNotFoundError, ConnectionError: As in `load`.
    """
    one_of("source of text", name, ("mc4", *TEXTS))
    record = languages.get(language)
    one_of("language of " + name, language, languages.codes(name))
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    if name == "mc4":
        text = mc4.load(record, size, seed, data, cache_folder())
        more = {"description": mc4.DESCRIPTION, "licence": mc4.LICENCE}
    else:
        options = _drawn(name, size, seed)
        frame = load(name, language, TEXTS[name], data=data, **options)
        more = {key: value for key, value in frame.attrs.items() if key != "pairs"}
        more |= {"size": size, "seed": seed}
        text = (frame if options else draw(frame, size, seed))["target"].rename("text")
        text.attrs = {}
    text.attrs |= more | {"corpus": name, "language": language, "lines": len(text)}
    return text


def _find_flores(name: str, data: str | os.PathLike | None = None) -> Path | None:
    return flores.find(name, data, cache_folder())


def _load_flores(
    name: str, language: languages.Language, split: str, data: str | os.PathLike | None
) -> pd.DataFrame:
    return flores.load(name, language, split, data, cache_folder())


def _load_cldr(
    language: languages.Language, split: str, data: object, **options: Any
) -> pd.DataFrame:
    frame = cldr.pairs(language.code, split, **options)
    frame.attrs |= {
        "version": f"CLDR {get_cldr_version()} in Babel {babel.__version__}",
        "size": len(frame),
        "seed": options.get("seed", 0),
    }
    return frame


def _find_release(release: released.Release, data: str | os.PathLike | None = None) -> Path | None:
    return _downloads.local(release.source.folder, data, cache_folder())


def _load_release(
    name: str,
    language: languages.Language,
    split: str,
    data: str | os.PathLike | None,
    **options: Any,
) -> pd.DataFrame:
    return released.load(name, language, split, data, cache_folder(), **options)


@dataclass(frozen=True)
class Corpus:
    """What `load` needs to know of a corpus.

    Attributes:
        splits: The names of its splits.
        description, licence: What it is, in a line; the SPDX identifier.
        origin: Where it comes from.
        find: Returns the local folder or None, given `data`.
        load: Returns the pairs, given the language, the split, `data` and the options.
        options: The names of its options.
    """

    splits: tuple[str, ...]
    description: str
    licence: str
    origin: str
    find: Callable[..., Path | None]
    load: Callable[..., pd.DataFrame]
    options: tuple[str, ...] = ()


CORPORA = {
    name: Corpus(
        splits=tuple(flores.SENTENCES),
        description=release.description,
        licence="CC-BY-SA-4.0",
        origin=release.url,
        find=partial(_find_flores, name),
        load=partial(_load_flores, name),
    )
    for name, release in flores.RELEASES.items()
} | {
    "cldr": Corpus(
        splits=tuple(cldr.SPLITS),
        description="CLDR phrases: names, amounts, dates and relative times, composed",
        licence="Unicode-3.0",
        origin="Babel, which the package brings along",
        find=lambda data=None: Path(localedata.resolve_locale_filename("root")).parent,
        load=_load_cldr,
        options=("size", "seed"),
    ),
}
CORPORA |= {
    name: Corpus(
        splits=release.splits,
        description=release.description,
        licence=release.licence,
        origin=release.source.origin,
        find=partial(_find_release, release),
        load=partial(_load_release, name),
        options=release.options,
    )
    for name, release in released.RELEASES.items()
}
NAMES = tuple(CORPORA)
"""The corpora that `load` knows."""
TRAINING = [name for name, release in released.RELEASES.items() if "train" in release.splits]
"""Released corpora to tune on."""
TEXTS = {"cldr": "train", "flores101": "dev", "flores200": "dev"}
"""Corpora whose one side serves as text, and the split that does."""
