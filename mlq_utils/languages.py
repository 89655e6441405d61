"""The paper's 101 languages and English: codes, names, families, script.

The source of names and families is Table 8 of the paper, of the pre-training languages its
footnote 2. What the scan of Table 8 leaves open was decided as follows.

* Cells that span several rows were given back to each of those rows. A label stands in the middle
  row of its span (the upper one of two); with this rule every span comes out at the size that the
  labels around it need, except among the North Germanic languages, where Icelandic and Swedish
  "North Germanic", Danish and Norwegian "Northwest Germanic" is one of two readings (the other
  puts Swedish with Danish).
* `family_3` is empty for Armenian, Japanese, Korean and Khmer: the paper gives two levels only.
* The paper is not always consistent (Bengali and Assamese are "Indo-Aryan, Eastern" beside
  "Indo-Iranian, Indo-Aryan" for Hindi; Kabuverdianu heads a family "Portuguese"): kept as printed.
* Both Chinese rows are called "Chinese"; here the script is added, so that names are unique.

Columns that are ours: `script` and `flores` follow the files of FLORES-200, whose `ku` is Sorani in
Arabic script (the paper does not say which Kurdish it means); `cldr` is the locale that Babel knows
in that same script, empty where it has none of use (nothing for Umbundu, for Nyanja and Northern
Sotho the names of months and days only); `space_separated` says whether the standard orthography
puts spaces between words (in Vietnamese, between syllables). Khmer does not, though its FLORES text
carries zero-width spaces between some words, which are no whitespace to `str.split`. `ntrex`,
`ted`, `wikimatrix` and `news_commentary` follow the releases of those corpora, in the script of
FLORES-200 and with Brazilian Portuguese as there (Fulani has none in NTREX-128, whose Pulaar is
another language). `flores101` is the list in that release's README; `mc4` is mC4's code, where its
text is in the same script: mC4's `ku` is Kurmanji in Latin script, and its `zh` both Chinese
scripts, most of it simplified.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import pandas as pd

from mlq_utils.data import PACKAGE_DATA, one_of

FLAGS = ("space_separated", "pretraining")
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
"""The column that holds a language's code in each corpus, empty where the corpus lacks it."""


@dataclass(frozen=True)
class Language:
    """One row of the table.

    Attributes:
        code: The paper's code, e.g. "zhtrad".
        name: The English name, unique.
        family_1: The widest family of Table 8.
        family_2: The family below it.
        family_3: The narrowest family; empty where the paper gives none.
        script: ISO 15924 code of the FLORES-200 file, e.g. "Latn".
        space_separated: Whether words are separated by spaces.
        flores: The FLORES-200 code, e.g. "zho_Hant".
        cldr: The Babel locale, e.g. "zh_Hant"; empty where there is none of use.
        pretraining: Whether it is one of the 20 Wikipedia languages of LLaMA (footnote 2).
        ntrex: The NTREX-128 code, e.g. "zho-TW"; empty where the corpus lacks the language, as in
            the following.
        ted: The column of the TED talks, e.g. "zh-tw".
        wikimatrix: The code in WikiMatrix with English.
        news_commentary: The code in News-Commentary.
        flores101: The FLORES-101 code, e.g. "zho_trad"; of every language.
        mc4: The code in mC4, e.g. "iw" for Hebrew.
    """

    code: str
    name: str
    family_1: str
    family_2: str
    family_3: str
    script: str
    space_separated: bool
    flores: str
    cldr: str
    pretraining: bool
    ntrex: str
    ted: str
    wikimatrix: str
    news_commentary: str
    flores101: str
    mc4: str


@cache
def _records() -> dict[str, Language]:
    frame = pd.read_csv(
        PACKAGE_DATA / "languages.csv",
        dtype={flag: bool for flag in FLAGS},
        keep_default_na=False,  # an empty family is a blank, not a missing number
    )
    return {row["code"]: Language(**row) for row in frame.to_dict("records")}


def table() -> pd.DataFrame:
    """Return all 102 languages, in the order of Table 8.

    Returns:
        A frame of its own (changing it changes nothing else) with one row a language and the
        attributes of `Language` as columns; `space_separated` and `pretraining` are booleans.
    """
    return pd.DataFrame(list(_records().values()))


def get(code: str) -> Language:
    """Return one language.

    Args:
        code: The paper's code.

    Raises:
        ValueError: The code is unknown; the message gives the nearest codes and all that exist.
    """
    return _records()[one_of("language", code, _records())]


def codes(covered_by: str | None = None) -> list[str]:
    """Return the codes of all languages, or of those that a corpus covers.

    Args:
        covered_by: A key of `COVERAGE`, or None for all.

    Returns:
        Codes in the order of Table 8, English among them.

    Raises:
        ValueError: The name is not one of these.
    """
    if covered_by is None:
        return list(_records())
    column = COVERAGE[one_of("corpus", covered_by, COVERAGE)]
    return [code for code, language in _records().items() if getattr(language, column)]


def check(codes: Iterable[str]) -> list[str]:
    """Return the codes as a list if each is known and none comes twice.

    Args:
        codes: The paper's codes.

    Raises:
        TypeError: A single string was given, which would be read letter by letter.
        ValueError: A code is unknown (with the nearest codes) or repeated.
    """
    if isinstance(codes, str):
        raise TypeError(f"give a list of language codes, not the string {codes!r}")
    codes = [get(code).code for code in codes]
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language given more than once: {', '.join(repeated)}")
    return codes
