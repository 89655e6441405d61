import json
import os
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from mlq_utils import languages
from mlq_utils.corpora import cldr
from mlq_utils.corpora.own import HAN, main_script

DATA = Path(os.environ.get("MLQ_DATA") or Path(__file__).parents[2] / "shared" / "data")

# How the Unicode names of a script's letters begin.
SCRIPTS = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hang": ("HANGUL",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Laoo": ("LAO",),
    "Latn": ("LATIN",),
    "Mlym": ("MALAYALAM",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}


def share_in_script(text: str, script: str) -> float:
    """The share of a text's letters that belong to a script."""
    letters = Counter(c for c in text if c.isalpha() and unicodedata.category(c) != "Lm")
    inside = sum(
        n for c, n in letters.items() if unicodedata.name(c, "").startswith(SCRIPTS[script])
    )
    return inside / letters.total()


def test_the_101_languages_of_the_paper_and_english():
    table = languages.table()
    assert len(table) == 102
    assert "en" in set(table.code)
    for column in ("code", "name", "flores"):
        assert table[column].is_unique, column
    located = table.cldr[table.cldr != ""]
    assert located.is_unique
    may_be_empty = ["family_3", *{*languages.COVERAGE.values()} - {"flores", "flores101", "code"}]
    assert not (table.drop(columns=may_be_empty) == "").any().any()
    assert set(table.code[table.family_3 == ""]) == {"hy", "ja", "ko", "km"}
    assert list(table.index) == list(range(102))


def test_columns_have_types_and_nothing_is_read_as_missing():
    table = languages.table()
    assert table.space_separated.dtype == bool
    assert table.pretraining.dtype == bool
    assert not table.isna().any().any()
    assert languages.get("no").name == "Norwegian"
    assert languages.get("no").pretraining is False


def test_the_script_is_that_of_the_flores_file():
    table = languages.table()
    assert (table.script == table.flores.str.split("_").str[1]).all()
    assert set(table.script) == set(SCRIPTS)


def test_pretraining_languages_are_footnote_2():
    table = languages.table()
    footnote = "bg ca cs da de en es fr hr hu it nl pl pt ro ru sl sr sv uk"
    assert sorted(table.code[table.pretraining]) == footnote.split()


@pytest.mark.parametrize(
    "code, family",
    [
        # Table 11 names the family of each representative language again.
        ("ha", "Afro-Asiatic"),
        ("mi", "Austronesian"),
        ("af", "Indo-European"),
        ("th", "Kra–Dai"),
        ("luo", "Nilo-Saharan"),
        ("tr", "Turkic"),
        ("he", "Afro-Asiatic"),
        ("ta", "Dravidian"),
        ("ro", "Indo-European"),
        ("ns", "Niger-Congo"),
        ("zh", "Sino-Tibetan"),
        ("et", "Uralic"),
    ],
)
def test_families_agree_with_table_11(code, family):
    assert languages.get(code).family_1 == family


def test_no_label_of_the_narrow_levels_belongs_to_two_families():
    table = languages.table()
    # "Indo-Aryan" stands at two levels in the paper, but each label has one place in its level.
    assert (table.groupby("family_2").family_1.nunique() == 1).all()
    assert (table[table.family_3 != ""].groupby("family_3").family_2.nunique() == 1).all()


def test_languages_without_spaces():
    table = languages.table()
    assert set(table.code[~table.space_separated]) == {"zh", "zhtrad", "ja", "th", "lo", "km", "my"}


def test_get_gives_one_row_and_names_the_nearest_where_there_is_none():
    zhtrad = languages.get("zhtrad")
    assert (zhtrad.flores, zhtrad.cldr, zhtrad.script) == ("zho_Hant", "zh_Hant", "Hant")
    assert languages.get("ku").script == "Arab"
    with pytest.raises(ValueError, match=r"unknown language 'zhtra'.*zhtrad") as error:
        languages.get("zhtra")
    assert "kam" in str(error.value)  # all that exist are named
    with pytest.raises(AttributeError):
        zhtrad.name = "changed"


def test_the_table_given_out_is_a_copy():
    table = languages.table()
    table.loc[0, "name"] = "changed"
    assert languages.table().loc[0, "name"] != "changed"


def test_codes_covered_by_a_corpus():
    assert len(languages.codes()) == len(languages.codes("flores200")) == 102
    missing = set(languages.codes()) - set(languages.codes("cldr"))
    assert missing == {"umb", "ny", "ns"}
    with pytest.raises(ValueError, match=r"unknown corpus 'flores'.*flores200"):
        languages.codes("flores")


def test_check_refuses_unknown_and_repeated_languages():
    assert languages.check(iter(["ro", "af"])) == ["ro", "af"]
    assert languages.check([]) == []
    with pytest.raises(ValueError, match="more than once: af, ro"):
        languages.check(["ro", "af", "ro", "af", "km"])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        languages.check(["ro", "xx"])
    with pytest.raises(TypeError, match="not the string 'ro'"):
        languages.check("ro")


@pytest.mark.skipif(not (DATA / "codes.json").is_file(), reason="no local copy of the real data")
def test_codes_are_those_of_the_data_folder():
    codes = json.loads((DATA / "codes.json").read_text())
    table = languages.table()
    assert dict(zip(table.code, table.flores, strict=True)) == codes


@pytest.mark.skipif(not (DATA / "flores200_dataset").is_dir(), reason="no local copy of FLORES-200")
@pytest.mark.parametrize("code", languages.codes())
def test_the_script_is_what_flores_is_written_in(code):
    language = languages.get(code)
    text = (DATA / "flores200_dataset" / "dev" / f"{language.flores}.dev").read_text("utf-8")
    assert share_in_script(text, language.script) > 0.9
    words = len(text.split()) / text.count("\n")
    assert (words > 10) == language.space_separated or code in ("lo", "km", "my", "th")


def test_the_further_languages_of_cldr_are_written_in_their_scripts():
    further = languages._records("languages_cldr.csv")
    assert not set(further) & set(languages.codes()) and len(further) > 50
    assert not {each.name for each in further.values()} & set(languages.table().name)
    for code, language in further.items():
        text = " ".join(cldr.pairs(code, "test", 5)["target"])
        assert main_script(text) == HAN.get(language.script, language.script), code
        if language.flores:
            assert language.flores.endswith(f"_{language.script}"), code


@pytest.mark.skipif(not (DATA / "fairness").is_dir(), reason="no list of FLORES-200's languages")
def test_the_further_languages_have_the_codes_of_flores():
    listed = pd.read_csv(DATA / "fairness/flores_language_map.csv", skipinitialspace=True)
    names = listed.set_index("FLORES-200 code")["Language"]
    for language in languages._records("languages_cldr.csv").values():
        one = "Chinese" if language.code == "yue" else language.name
        if language.flores:
            assert one in names[language.flores]
        else:
            assert language.name not in set(names)
