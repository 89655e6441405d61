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

The other columns are our own. `script` and `flores` follow the files of FLORES-200, whose `ku` is
Sorani in Arabic script; the paper does not say which Kurdish it means. `cldr` is Babel's locale in
the same script, empty if it has none of use: it lacks Umbundu, and has only months and days for
Nyanja and Northern Sotho. `space_separated` says whether the orthography puts spaces between words
(in Vietnamese, between syllables). Khmer does not, though its FLORES text has zero-width spaces
between some words. `ntrex`, `ted`, `wikimatrix` and `news_commentary` follow the releases, in the
script of FLORES-200 and with Brazilian Portuguese (the Pulaar of NTREX-128 is not Fulani).
`flores101` is the list in that release's README. `mc4` is empty if mC4's text is in another script:
its `ku` is Kurmanji in Latin script, and its `zh` mixes both Chinese scripts.
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
"""The column with a language's code in each corpus, empty if the corpus lacks the language."""


@dataclass(frozen=True)
class Language:
    """A language of the paper. Codes are empty if a corpus lacks the language.

    Attributes:
        code: The paper's code, e.g. "zhtrad".
        name: The English name, unique.
        family_1: The widest family of Table 8.
        family_2: The family below it.
        family_3: The narrowest family, empty if the paper gives none.
        script: ISO 15924 code of the script in FLORES-200, e.g. "Latn".
        space_separated: Whether words are separated by spaces.
        flores: The FLORES-200 code, e.g. "zho_Hant".
        cldr: The Babel locale, e.g. "zh_Hant".
        pretraining: Whether it is one of the 20 Wikipedia languages of LLaMA (footnote 2).
        ntrex: The NTREX-128 code, e.g. "zho-TW".
        ted: The column of the TED talks, e.g. "zh-tw".
        wikimatrix: The code in WikiMatrix with English.
        news_commentary: The code in News-Commentary.
        flores101: The FLORES-101 code, e.g. "zho_trad".
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
    """Return a frame of all 102 languages in the order of Table 8.

    Its columns are the attributes of `Language`. It is a copy that may be changed.
    """
    return pd.DataFrame(list(_records().values()))


def get(code: str) -> Language:
    """Return one language by the paper's code.

    Raises:
        ValueError: The code is unknown. The message gives the nearest codes and all that exist.
    """
    return _records()[one_of("language", code, _records())]


def codes(covered_by: str | None = None) -> list[str]:
    """Return codes in the order of Table 8, with English among them.

    Args:
        covered_by: A key of `COVERAGE`; only the languages of that corpus are returned. Defaults to
            all languages.

    Raises:
        ValueError: The corpus is unknown.
    """
    if covered_by is None:
        return list(_records())
    column = COVERAGE[one_of("corpus", covered_by, COVERAGE)]
    return [code for code, language in _records().items() if getattr(language, column)]


def check(codes: Iterable[str]) -> list[str]:
    """Return the codes as a list if each is known and none is repeated.

    Raises:
        TypeError: A single string was given, which would be read letter by letter.
        ValueError: A code is unknown or repeated.
    """
    if isinstance(codes, str):
        raise TypeError(f"give a list of language codes, not the string {codes!r}")
    codes = [get(code).code for code in codes]
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language given more than once: {', '.join(repeated)}")
    return codes
