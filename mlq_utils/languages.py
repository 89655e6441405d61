"""The paper's 101 languages and English, with their codes, names, families and scripts.

Names and families are those of the paper's Table 8, the pre-training languages those of its
footnote 2. These decisions fill what the scan of Table 8 leaves open:

* Cells that span several rows were given back to each of those rows. A label stands in the middle
  row of its span (the upper one of two). With this rule every span gets the size that the labels
  around it need, except among the North Germanic languages: Icelandic and Swedish as "North
  Germanic", Danish and Norwegian as "Northwest Germanic" is one of two readings.
* `family_3` is empty for Armenian, Japanese, Korean and Khmer, which have two levels.
* Inconsistencies are kept as printed: Bengali and Assamese are "Indo-Aryan, Eastern" beside
  "Indo-Iranian, Indo-Aryan" for Hindi, and Kabuverdianu heads a family "Portuguese".
* Both Chinese rows are called "Chinese". The script is added here, so that names are unique.

The other columns are our own (see `Language`). FLORES-200 decides what the paper does not say: its
`ku` is Sorani in Arabic script, and its Portuguese is Brazilian.

Other languages of which CLDR has enough text, such as Basque (eu), are known by their codes as
well, but are in no table of the paper's. Any further language is a value, `Language(...)`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import pandas as pd

from mlq_utils.data import PACKAGE_DATA, one_of

COVERAGE = {
    "flores200": "flores",
    "flores101": "flores101",
    "cldr": "cldr",
    "ntrex": "ntrex",
    "ted": "ted",
    "wikimatrix": "wikimatrix",
    "news_commentary": "news_commentary",
    "lego_mt": "code",
    "mc4": "mc4",
}
"""The column with a language's code in each corpus, empty if the corpus lacks the language."""


@dataclass(frozen=True)
class Language:
    """A language.

    A code of a corpus is empty if the corpus lacks the language or has it in another script.

    Attributes:
        code: The paper's code, e.g. "zhtrad".
        name: The English name, unique. Prompts name the language by it.
        script: ISO 15924 code of the script in FLORES-200, e.g. "Latn".
        family_1: The widest family of Table 8. `family_2` and `family_3` are below it.
        space_separated: Whether the orthography puts spaces between words, or between syllables as
            in Vietnamese. Khmer does not, though its FLORES text has some zero-width spaces.
        pretraining: Whether it is one of the 20 Wikipedia languages of LLaMA (footnote 2).
        flores: The FLORES-200 code, e.g. "zho_Hant". `flores101`, `ntrex`, `ted`, `wikimatrix` and
            `news_commentary` are the codes of these corpora.
        cldr: The Babel locale, e.g. "zh_Hant". Babel lacks Umbundu, and has only months and days
            for Nyanja and Northern Sotho.
        mc4: The code in mC4, e.g. "iw" for Hebrew. mC4's `ku` is Kurmanji in Latin script, and its
            `zh` mixes both Chinese scripts.
    """

    code: str
    name: str
    script: str
    family_1: str = ""
    family_2: str = ""
    family_3: str = ""
    space_separated: bool = True
    flores: str = ""
    cldr: str = ""
    pretraining: bool = False
    ntrex: str = ""
    ted: str = ""
    wikimatrix: str = ""
    news_commentary: str = ""
    flores101: str = ""
    mc4: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no code or script."""
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.code):
            raise ValueError(f"a language's code is of letters, not {self.code!r}")
        if not re.fullmatch(r"[A-Z][a-z]{3}", self.script):
            raise ValueError(f"script must be an ISO 15924 code such as Latn, not {self.script!r}")


@cache
def _records(file: str = "languages.csv") -> dict[str, Language]:
    # An empty family is a blank, not a missing number.
    frame = pd.read_csv(PACKAGE_DATA / file, keep_default_na=False)
    return {row["code"]: Language(**row) for row in frame.to_dict("records")}


def table() -> pd.DataFrame:
    """Return the paper's 102 languages in the order of Table 8, with the fields of `Language`."""
    return pd.DataFrame(list(_records().values()))


def get(language: str | Language) -> Language:
    """Return a language by the paper's code, or by CLDR's. A `Language` is returned as it is.

    Raises:
        ValueError: The code is unknown. The message gives the nearest codes and the paper's.
    """
    if isinstance(language, Language):
        return language
    known = _records()
    further = {} if language in known else _records("languages_cldr.csv")
    return further.get(language) or known[one_of("language", language, known)]


def covers(corpus: str, language: str | Language) -> bool:
    """Return whether a corpus, a key of `COVERAGE`, has a language."""
    return bool(getattr(get(language), COVERAGE[corpus]))


def codes(covered_by: str | None = None) -> list[str]:
    """Return codes in the order of Table 8, with English among them.

    Args:
        covered_by: Only the languages of this corpus, a key of `COVERAGE`. Defaults to all.

    Raises:
        ValueError: The corpus is unknown.
    """
    if covered_by is None:
        return list(_records())
    return list(_covered(COVERAGE[one_of("corpus", covered_by, COVERAGE)]))


@cache  # every `Spec` asks, and a comparison makes thousands of them
def _covered(column: str) -> tuple[str, ...]:
    return tuple(code for code, language in _records().items() if getattr(language, column))


def check(codes: Iterable[str | Language]) -> list[str]:
    """Return the codes as a list, or raise ValueError if one is unknown or repeated."""
    if isinstance(codes, str):  # it would be read letter by letter
        raise TypeError(f"give a list of language codes, not the string {codes!r}")
    codes = [get(code).code for code in codes]
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language given more than once: {', '.join(repeated)}")
    return codes
