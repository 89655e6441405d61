"""The released corpora: where their files are, and which files hold a language.

A release is looked for in its own folder, first in `MLQ_DATA` and then in the download cache. It is
fetched only if there is no such folder, or if the folder in the cache lacks a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import babel
import yaml
from babel import localedata
from babel.core import get_cldr_version

from mlq_utils import languages
from mlq_utils.data import PACKAGE_DATA, cache_folder, fetch, find_folder, one_of, unpack
from mlq_utils.languages import Language


@dataclass(frozen=True)
class Corpus:
    """A corpus and the files of its release.

    Attributes:
        description: What the corpus is, in one line.
        licence: SPDX identifier or a phrase.
        version: The release, as its publisher names it.
        origin: Where a person finds the release. Empty if that is `url`.
        splits: Names of the splits that `corpora.load` reads. Empty for text without pairs.
        folder: Folder that holds the files. Empty for CLDR, which has none.
        files: Paths in that folder, with `{code}`, `{split}`, and `{first}` and `{second}` for the
            two codes in alphabetical order. If there are two files, English comes first.
        columns: Names of a file's columns, likewise. Empty if the file has a header.
        sentences: Number of sentences in each split, if it is the same in all languages.
        strict: Whether blank lines and a last line without an end are errors, see `readers.lines`.
        url: Address of each file, with `{file}`, or of the archive that holds all. Empty if only a
            person can get the files.
        sha256: Checksum of the archive. None if the publisher provides none.
    """

    description: str
    licence: str
    version: str = f"CLDR {get_cldr_version()} in Babel {babel.__version__}"
    origin: str = ""
    splits: Sequence[str] = ()
    folder: str = ""
    files: Sequence[str] = ()
    columns: Sequence[str] = ()
    sentences: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    url: str = ""
    sha256: str | None = None


CORPORA = {
    name: Corpus(**fields)
    for name, fields in yaml.safe_load((PACKAGE_DATA / "corpora.yaml").read_text("utf-8")).items()
}
NAMES = tuple(name for name, corpus in CORPORA.items() if corpus.splits)
"""The corpora that `load` reads."""


def find(name: str) -> Path | None:
    """Return the folder with a corpus (Babel's own for cldr), or None if it is not here."""
    corpus = CORPORA[one_of("corpus", name, CORPORA)]
    if not corpus.folder:
        return Path(localedata.resolve_locale_filename("root")).parent
    return find_folder(corpus.folder)


def code_in(name: str, language: str | Language) -> str:
    """Return a language's code in a corpus, or raise ValueError if the corpus lacks it."""
    record = languages.get(language)
    if code := getattr(record, languages.COVERAGE[name]):
        return code
    return one_of(f"language of {name}", record.code, languages.codes(name))


def file_names(name: str, language: str | Language, split: str) -> tuple[str, ...]:
    """Return the files that hold a language's pairs, relative to the corpus's folder."""
    code = code_in(name, language)
    first, second = sorted(("en", code))
    names = {"code": code, "split": split, "first": first, "second": second}
    files = [file.format(**names) for file in CORPORA[name].files]
    # English is its own translation: NTREX, for one, has no second file of it.
    return tuple(files if languages.get(language).code != "en" else files[:1] * len(files))


def fetched(name: str, files: Sequence[str], by_hand: bool = False) -> list[Path]:
    """Return the paths of a corpus's files, which are fetched unless they are on this machine.

    Files that only a person can get (`by_hand`) are never fetched.

    Raises:
        FileNotFoundError: A file is missing in the user's folder, or only a person can get it.
        ConnectionError: There is no network.
    """
    corpus = CORPORA[name]
    kept = cache_folder() / corpus.folder
    folder = find_folder(corpus.folder) or kept
    if corpus.url.endswith(".tar.gz") and not folder.is_dir():
        archive = cache_folder() / corpus.url.rpartition("/")[2]
        remedy = f"set MLQ_DATA to the folder that holds {corpus.folder}/{files[-1]}"
        fetch(corpus.url, archive, name, remedy, corpus.sha256)
        unpack(archive, folder, files[-1])
    paths = [folder / file for file in files]
    place = f"{corpus.folder} in the folder MLQ_DATA"
    for path in paths:
        if path.is_file():
            continue
        if folder != kept or by_hand or "{file}" not in corpus.url:
            origin = corpus.origin or corpus.url
            raise FileNotFoundError(
                f"{path} is missing. The release is at {origin}; {name} is read from {place}"
            )
        fetch(corpus.url.format(file=path.name), path, name, f"put it into {place}")
    return paths
