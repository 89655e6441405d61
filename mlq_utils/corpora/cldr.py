"""The embedded parallel corpus: phrases composed from the Unicode CLDR, which Babel carries.

A phrase is one, two or three items joined by the locale's list pattern. An item is a territory, a
language name, an amount with a unit or a currency, a full date or a relative time. The same items
are rendered in English and in the language:

    en  Thursday, January 9, 2003, 7 years ago, and Romania
    ro  joi, 9 ianuarie 2003, acum 7 ani și România

* Languages share their English sources. A seed gives one endless stream of combinations of items,
  and each language takes from it, in order, those that it can render.
* No combination of items is in both splits, whatever the seed and the language, because a checksum
  of the sorted items decides where it belongs. Single items are in both.
* An item is used only if the locale has a value of its own for it, even one that equals English
  ("Portugal" in Romanian). Otherwise Babel would answer with CLDR's root ("+7 y", "7 km") or a bare
  identifier. List patterns and the order within dates hold no words, and may be root's.
* Within `enciphered`, the letters of some languages are replaced by signs that no language here
  has. `decipher` gives the text as it was.
* Numbers are in Latin digits, and all text is in NFC. No-break spaces become spaces. Soft hyphens
  and direction marks are dropped, because they steer layout only. Zero-width spaces and joiners
  belong to the spelling (Khmer, Lao, Persian, Kannada) and stay.
"""

import contextlib
import copy
import datetime
import itertools
import operator
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Literal

import pandas as pd
from babel import Locale, UnknownLocaleError, localedata
from babel.dates import format_date
from babel.numbers import format_currency

from mlq_utils import languages
from mlq_utils.corpora.releases import code_in
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.languages import Language

Item = tuple[str, str, int]
"""Kind, name and value: ("territory", "RO", 0), ("unit", "mass-gram", 7), ("date", "", 731224)."""
Split = Literal["train", "test"]

SPLITS = {"train": 10_000, "test": 200}
"""The splits and their default numbers of pairs."""
LENGTHS = {1: 25, 2: 45, 3: 30}
"""How many items a phrase has, with the weights in percent."""
LEAST = 0.25
"""Share of the phrases that a locale must be able to render."""
KINDS = {"territory": 30, "language": 20, "unit": 12, "currency": 10, "date": 16, "relative": 12}
"""The kinds of items, with their weights in percent."""

# Read as text, because "NA" is Namibia and the name of a date is empty.
_ITEMS = pd.read_csv(PACKAGE_DATA / "cldr_items.csv", dtype=str, keep_default_na=False)
NAMES = {kind: tuple(_ITEMS["name"][_ITEMS["kind"] == kind]) for kind in KINDS}
"""The names of each kind, of states and languages those that most locales have. The stream depends
on their order in the file."""

_FIRST_DAY, _LAST_DAY = (datetime.date(y, 1, 1).toordinal() for y in (1950, 2050))
VALUES: Mapping[str, range] = {
    "unit": range(1, 1000),
    "currency": range(1, 1000),
    "date": range(_FIRST_DAY, _LAST_DAY),
    "relative": range(1, 100),
}
"""The possible values by kind, if it has any; dates are ordinals (`date.toordinal`)."""

_LETTERS = [chr(code) for code in range(0x250) if chr(code).isalpha()]
"""Latin letters up to Unicode's Extended-B. Those beyond, as in Vietnamese, are not enciphered."""
_SIGNS = {"en": 0x14400, "": 0x12000}
"""The first sign for the letters of English (Anatolian hieroglyphs) and of others (cuneiform)."""
_CIPHERS = {
    code: str.maketrans({letter: chr(first + n) for n, letter in enumerate(_LETTERS)})
    for code, first in _SIGNS.items()
}
_PLAIN = str.maketrans(
    {chr(first + n): letter for first in _SIGNS.values() for n, letter in enumerate(_LETTERS)}
)
_ENCIPHERED: ContextVar[frozenset[str]] = ContextVar("enciphered", default=frozenset())

_TABLES = {"territory": "territories", "language": "languages", "currency": "currency_names"}
_LAYOUT = str.maketrans(dict.fromkeys("\u00a0\u202f", " ") | dict.fromkeys("\u00ad\u200e\u200f"))
# A copy, because reading resolves aliases in place, and every locale that Babel loads later would
# inherit root's answers ("M04" for April in Yoruba).
_ROOT = localedata.LocaleDataDict(copy.deepcopy(localedata.load("root")))


def split_of(items: tuple[Item, ...]) -> Split:
    """Return the split of a combination in whatever order. One in ten is for test."""
    key = "|".join(sorted(f"{kind}:{name}:{value}" for kind, name, value in items))
    return "test" if zlib.crc32(key.encode()) % 10 == 0 else "train"


def combinations(seed: int, split: Split | None = None) -> Iterator[tuple[Item, ...]]:
    """Draw combinations of one to three different items without end. One can come again.

    A seed, which is a natural number, gives the same stream on every machine. Without a split, the
    combinations of both are drawn.
    """
    if split is not None:
        one_of("split", split, SPLITS)
    # Only `random()` is promised to give the same numbers in every version of Python.
    draw = random.Random(operator.index(seed)).random
    lengths = [length for length, weight in LENGTHS.items() for _ in range(weight)]
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]

    def item() -> Item:
        kind = kinds[int(draw() * len(kinds))]
        names = NAMES[kind]
        name = names[int(draw() * len(names))]
        values = VALUES.get(kind)
        return kind, name, values[int(draw() * len(values))] if values else 0

    while True:
        items = tuple(item() for _ in range(lengths[int(draw() * len(lengths))]))
        if len(set(items)) == len(items) and split in (None, split_of(items)):
            yield items


@lru_cache(maxsize=8)
def _first(number: int, seed: int, split: Split) -> list[tuple[Item, ...]]:
    """Return the first combinations of a stream, which are drawn once for all languages."""
    return list(itertools.islice(combinations(seed, split), number))


class Phrasebook:
    """Renders items in one locale, a Babel identifier such as "zh_Hant".

    Attributes:
        items: The names in `NAMES` that the locale translates, by kind.
    """

    def __init__(self, locale: str) -> None:
        """Find which names the locale translates."""
        self.locale = Locale.parse(locale)
        self._data = self.locale._data  # nothing public tells what a locale inherits
        self._rendered: dict[Item, str] = {}
        patterns = self.locale.list_patterns["standard"]
        self._lists = {place: text.translate(_LAYOUT) for place, text in patterns.items()}
        self.items = {
            kind: frozenset(name for name in names if self._translates(kind, name))
            for kind, names in NAMES.items()
        }

    def _translates(self, kind: str, name: str) -> bool:
        """Return whether the locale has a value of its own, and not root's."""
        if kind == "date":
            return all(
                value != _ROOT[part]["format"]["wide"][key]
                for part in ("months", "days")
                for key, value in self._data[part]["format"]["wide"].items()
            )
        if kind in ("unit", "relative"):
            own = _patterns(kind, name, self._data).get("other")
            return own not in (None, _patterns(kind, name, _ROOT).get("other"))
        return name in self._data[_TABLES[kind]]

    def can(self, items: tuple[Item, ...]) -> bool:
        """Return whether the locale translates each of the items."""
        return all(name in self.items[kind] for kind, name, _ in items)

    def render(self, items: tuple[Item, ...]) -> str:
        """Return the items as one phrase. The locale must be able to render them, see `can`."""
        first, *others = [self._rendered.get(item) or self._render(item) for item in items]
        if len(others) == 2:
            text = self._lists["start"].format(first, others[0])
            text = self._lists["end"].format(text, others[1])
        else:
            text = self._lists["2"].format(first, *others) if others else first
        name = str(self.locale)
        return (
            text.translate(_CIPHERS.get(name, _CIPHERS[""])) if name in _ENCIPHERED.get() else text
        )

    def _render(self, item: Item) -> str:
        kind, name, value = item
        if kind in ("territory", "language"):
            text = self._data[_TABLES[kind]][name]
        elif kind == "currency":
            text = format_currency(
                value, name, locale=self.locale, format_type="name", currency_digits=False
            )
        elif kind == "date":
            text = format_date(datetime.date.fromordinal(value), "full", self.locale)
        else:
            patterns = _patterns(kind, name, self._data)
            pattern = patterns.get(self.locale.plural_form(value), patterns["other"])
            text = pattern.replace("{0}", str(value))
        self._rendered[item] = text = text.translate(_LAYOUT)
        return text


def _patterns(kind: str, name: str, data: Mapping) -> Mapping[str, str]:
    """Return the patterns of a unit or a relative time by plural category."""
    if kind == "relative":
        field, direction = name.split("-")
        return data["date_fields"].get(field, {}).get(direction, {})
    forms = data["unit_patterns"].get(name, {})
    long = forms.get("long", {})
    # A unit without a long form takes the short one, as CLDR prescribes and Babel does not.
    return long if "other" in long else forms.get("short", {})


@cache
def phrasebook(language: str | Language) -> Phrasebook:
    """Return the phrasebook of a language, or raise ValueError if Babel has too little of it."""
    locale = code_in("cldr", language)
    try:
        book = Phrasebook(locale)
    except (UnknownLocaleError, ValueError, KeyError) as error:
        raise ValueError(f"Babel has no locale {locale!r}: {error}") from None
    some = _first(100, 0, "train")
    if sum(map(book.can, some)) < LEAST * len(some):
        raise ValueError(f"CLDR has too little text in {locale!r} to compose phrases from")
    return book


@contextlib.contextmanager
def enciphered(codes: Iterable[str]) -> Iterator[None]:
    """Encipher all phrases in some languages.

    Args:
        codes: The languages, in Latin script; English is `en`. Empty for plain text.

    Raises:
        ValueError: CLDR lacks a language, or its script is another.
    """
    codes = list(codes)
    locales = frozenset(str(phrasebook(code).locale) for code in codes)
    for code in codes:
        if languages.get(code).script != "Latn":
            raise ValueError(f"only Latin letters are enciphered, and {code!r} has others")
    token = _ENCIPHERED.set(locales)
    try:
        yield
    finally:
        _ENCIPHERED.reset(token)


def decipher(text: str) -> str:
    """Return a text with the letters that `enciphered` has replaced; other text is as it was."""
    return text.translate(_PLAIN)


def drawn(
    language: str | Language, split: Split, size: int | None = None, seed: int = 0
) -> list[tuple[Item, ...]]:
    """Return the combinations of items that `pairs` renders, which has the same arguments."""
    book = phrasebook(language)
    default = SPLITS[one_of("split", split, SPLITS)]
    size = default if size is None else operator.index(size)
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    kept: dict[frozenset[Item], tuple[Item, ...]] = {}
    number = size
    while len(kept) < size:  # how many are needed depends on how much the locale translates
        number *= 2
        for items in filter(book.can, _first(number, seed, split)):
            kept.setdefault(frozenset(items), items)
    return list(kept.values())[:size]


def pairs(
    language: str | Language, split: Split, size: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return English phrases and their translations.

    Args:
        language: A language, as `languages.get` takes it. "en" gives each source as its own target.
        split: "train" or "test".
        size: Number of pairs, of which there are always enough. Defaults to `SPLITS[split]`.
        seed: Random seed for the stream of combinations, a natural number.

    Returns:
        A frame with columns `source` (English) and `target`. No combination of items comes twice,
        in whatever order.

    Raises:
        ValueError: The language or split is unknown, or `size` is less than 1.
        TypeError: `size` or `seed` is not a whole number.
    """
    book, english = phrasebook(language), phrasebook("en")
    rows = [(english.render(i), book.render(i)) for i in drawn(language, split, size, seed)]
    return pd.DataFrame(rows, columns=["source", "target"])
