"""Parallel text, English to each language: one `load` for every corpus.

    load("flores200", "ro", "devtest")          # the official release, or a local copy
    load("cldr", "ro", "train", size=600)       # composed on the spot, nothing to download

FLORES-200 is looked for, in this order, in the folder given as `data`, in `MLQ_DATA`, and in the
download cache; only then is the release fetched, checked against its SHA-256 and unpacked. Each of
these folders holds `flores200_dataset/<split>/<code>.<split>`, as the release does. A folder that
is there but incomplete is an error, never a reason to download.
"""

import argparse
import hashlib
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

from mlq_utils import _downloads, cldr, languages, released
from mlq_utils._common import one_of, some_of
from mlq_utils._downloads import cache_folder

FLORES_SENTENCES = {"dev": 997, "devtest": 1012}
"""The splits of FLORES-200 and the number of sentences of each, the same in every language."""

FLORES_RELEASE = {
    "url": "https://dl.fbaipublicfiles.com/nllb/flores200_dataset.tar.gz",
    # 25,585,843 bytes; the digest that MLCommons publishes in its Croissant record of FLORES-200.
    "sha256": "b8b0b76783024b85797e5cc75064eb83fc5288b41e9654dabc7be6ae944011f6",
}
FLORES_FOLDER = "flores200_dataset"
FEW = 10_000
"""Pairs below which the paper's Table 2 has no results by number of pairs."""


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
        comes from: corpus, language, split, pairs, description, version, licence; for flores200
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
    known = {
        key
        for name, part in unlike
        if language in languages.codes(name)
        for column in ("source", "target")
        for key in _keys(load(name, language, part, data=data)[column])
        if key
    }
    keys = pd.DataFrame({column: _keys(frame[column]) for column in frame})
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


def draw(frame: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Return rows drawn without replacement, all where there are fewer than `size`.

    Those of a smaller size are the first of those of a larger one with the same seed.
    """
    order = np.random.default_rng(seed).permutation(len(frame))[:size]
    return frame.iloc[order].reset_index(drop=True)


def _drawn(name: str, size: int, seed: int) -> dict[str, int]:
    """Return the options of a corpus that is composed as asked; a released one is read whole."""
    return {"size": size, "seed": seed} if "size" in CORPORA[name].options else {}


def _keys(sentences: Iterable[str]) -> list[str]:
    """Return each sentence's letters and digits, in one case and width."""
    plain = (unicodedata.normalize("NFKC", sentence).casefold() for sentence in sentences)
    return ["".join(filter(str.isalnum, sentence)) for sentence in plain]


def statistics(
    names: Iterable[str] | None = None, data: str | os.PathLike | None = None
) -> pd.DataFrame:
    """Count the training pairs of every language that lie on this machine (compare Table 10).

    Args:
        names: Corpora; all with a training split whose files are released, where None.
        data: As in `load`; nothing is downloaded.

    Returns:
        A row a corpus and language: `corpus`, `language`, `pairs` (missing where its file is not
        here) and `few`, whether they are under `FEW`.

    Raises:
        ValueError: Unknown name, or a damaged file.
    """
    rows = []
    for name in names or TRAINING:
        here = find(name, data) is not None
        for code in languages.codes(one_of("corpus", name, released.RELEASES)):
            if code == "en":
                continue
            record = languages.get(code)
            pairs = released.count(name, record, "train", data, cache_folder()) if here else None
            rows.append({"corpus": name, "language": code, "pairs": pairs})
    frame = pd.DataFrame(rows, columns=["corpus", "language", "pairs"]).astype({"pairs": "Int64"})
    return frame.assign(few=frame["pairs"] < FEW)


def _find_flores(data: str | os.PathLike | None = None) -> Path | None:
    return _downloads.local(FLORES_FOLDER, data, cache_folder())


def _load_flores(
    language: languages.Language, split: str, data: str | os.PathLike | None
) -> pd.DataFrame:
    folder = _find_flores(data) or _download_flores()
    english = languages.get("en").flores
    (source, source_sha256), (target, target_sha256) = (
        _sentences(folder / split / f"{code}.{split}", FLORES_SENTENCES[split])
        for code in (english, language.flores)
    )
    frame = pd.DataFrame({"source": source, "target": target})
    frame.attrs |= {
        "version": "flores200_dataset.tar.gz",
        "source_sha256": source_sha256,
        "target_sha256": target_sha256,
    }
    return frame


def _sentences(path: Path, expected: int) -> tuple[list[str], str]:
    """Return the lines of a file and its SHA-256.

    Lines end at U+000A only: `str.splitlines` would also cut at U+2028 or U+0085, which occur
    within sentences, and shift every later pair.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the local copy is incomplete")
    raw = path.read_bytes()

    def refuse(what: str, at: int) -> ValueError:
        return ValueError(f"{path}, line {raw.count(10, 0, at) + 1}: {what}")

    for bad, what in (*released.BAD, (b"\r", "CR")):
        if (at := raw.find(bad)) >= 0:
            raise refuse(f"a {what}, which the release does not have", at)
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise refuse(f"not UTF-8 ({error.reason})", error.start) from None
    if lines.pop() or len(lines) != expected:
        raise ValueError(
            f"{path} has {raw.count(10)} whole lines where {expected} are expected: the file is "
            "truncated or not the release's"
        )
    if blank := next((n for n, line in enumerate(lines, 1) if not line.strip()), None):
        raise ValueError(f"{path}, line {blank}: an empty sentence")
    return lines, hashlib.sha256(raw).hexdigest()


def _download_flores() -> Path:
    """Fetch, check and unpack the release; the folder appears whole or not at all."""
    cache = cache_folder()
    archive = _downloads.fetch(
        FLORES_RELEASE["url"],
        cache / f"{FLORES_FOLDER}.tar.gz",
        "FLORES-200",
        f"set MLQ_DATA to the folder that holds {FLORES_FOLDER}/dev/eng_Latn.dev and so on",
        FLORES_RELEASE["sha256"],
    )
    return _downloads.unpack(archive, cache / FLORES_FOLDER)


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
        find: Returns the local folder or None, given `data`.
        load: Returns the pairs, given the language, the split, `data` and the options.
        options: The names of its options.
    """

    splits: tuple[str, ...]
    description: str
    licence: str
    find: Callable[..., Path | None]
    load: Callable[..., pd.DataFrame]
    options: tuple[str, ...] = ()


CORPORA = {
    "flores200": Corpus(
        splits=tuple(FLORES_SENTENCES),
        description="FLORES-200: sentences of English Wikimedia projects, translated by hand",
        licence="CC-BY-SA-4.0",
        find=_find_flores,
        load=_load_flores,
    ),
    "cldr": Corpus(
        splits=tuple(cldr.SPLITS),
        description="CLDR phrases: names, amounts, dates and relative times, composed",
        licence="Unicode-3.0",
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many training pairs of each language are here, and which languages have few."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("corpora", nargs="*", help=f"some of {', '.join(TRAINING)}; all if none")
    given = parser.parse_args(arguments)
    counts = statistics(some_of(parser, "corpus", given.corpora, TRAINING))
    for name, rows in counts.groupby("corpus", sort=False):
        known = rows.dropna(subset="pairs").set_index("language")
        print(f"{name}: {len(known)} of {len(rows)} languages here")
        for code, row in known.sort_values("pairs").iterrows():
            print(f"  {code:7}{row['pairs']:>12,}{f'  under {FEW:,}' if row['few'] else ''}")


if __name__ == "__main__":
    main()
