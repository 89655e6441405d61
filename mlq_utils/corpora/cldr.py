"""The embedded parallel corpus: phrases composed from the Unicode CLDR, which Babel carries.

A phrase is one, two or three items (25, 45, 30%) joined by the locale's list pattern; an item is a
territory, a language name, an amount with a unit or a currency, a full date or a relative time
(weights in `KINDS`). The same items are rendered in English and in the language:

    en  Thursday, January 9, 2003, 7 years ago, and Romania
    ro  joi, 9 ianuarie 2003, acum 7 ani și România

**Parallel.** The seed draws one endless stream of combinations that knows nothing of languages. A
language takes from it, in order, what it can render, so two languages share their English sources
wherever both have the items.

**Disjoint.** Whether a combination is for train or test (one in ten) depends on a checksum of its
items, sorted: not on seed, size or language, so none, in whatever order, is ever in both. Items are
shared: of the 182 territories and languages about a tenth stand alone in test only, and stand
beside others in train. Sources never recur; a target can, where two English items have one name.

**Only what is translated.** Babel fills what a locale lacks from CLDR's root, which has no names,
"+7 y" for relative times and "7 km" for units, or writes a bare identifier ("length-nanometer").
An item is used if the locale has a value for it that is not root's. A value that equals English is
kept: it is the locale's own ("Portugal" in Romanian; in Cebuano or Filipino nearly every
territory); `coverage` reports how many. List patterns and the order within dates may be root's (a
comma, "2003 January 9, Thursday"): they hold no words. A unit without a long form takes the
locale's short one, as CLDR prescribes and Babel does not.

**Characters.** Numbers stay under 1000 and are in Latin digits, in every language. No-break spaces
become spaces; soft hyphens and direction marks, which steer layout only, are dropped. Zero-width
spaces and joiners are spelling (Khmer, Lao, Persian, Kannada) and stay. All text is in NFC. The
oddities of CLDR stay too (Welsh "a(c)"). CLDR data is under the Unicode licence (Unicode-3.0).
"""

import copy
import datetime
import operator
import random
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Literal

import pandas as pd
from babel import Locale, localedata
from babel.dates import format_date
from babel.numbers import format_currency

from mlq_utils import languages
from mlq_utils.data import PACKAGE_DATA, one_of

Item = tuple[str, str, int]
"""Kind, name, value: ("territory", "RO", 0), ("unit", "mass-gram", 7), ("date", "", 731224)."""
Split = Literal["train", "test"]

SPLITS = {"train": 10_000, "test": 200}
"""The splits and how many pairs each has where no size is given."""
THIN = 0.5
"""A language is refused where it can render less than this share of the items drawn."""

LENGTHS = {1: 25, 2: 45, 3: 30}
KINDS = {"territory": 30, "language": 20, "unit": 12, "currency": 10, "date": 16, "relative": 12}


# Read as text: "NA" is Namibia, and a date has no name.
_ITEMS = pd.read_csv(PACKAGE_DATA / "cldr_items.csv", dtype=str, keep_default_na=False)
NAMES = {kind: tuple(_ITEMS["name"][_ITEMS["kind"] == kind]) for kind in KINDS}
"""The items of each kind: 120 states that every locale with names of territories names; the 44
languages that the thinnest locales name and 18 more; 20 units and 10 currencies of everyday use;
seven fields of time, past and future. In the order of the file, which the stream depends on."""

_FIRST_DAY, _LAST_DAY = (datetime.date(y, 1, 1).toordinal() for y in (1950, 2050))
VALUES: Mapping[str, range] = {
    "unit": range(1, 1000),
    "currency": range(1, 1000),
    "date": range(_FIRST_DAY, _LAST_DAY),
    "relative": range(1, 100),
}
"""The values of the kinds that have one; dates are proleptic ordinals (`date.toordinal`)."""

_LAYOUT = str.maketrans(dict.fromkeys("\u00a0\u202f", " ") | dict.fromkeys("\u00ad\u200e\u200f"))
# A copy: reading resolves aliases in place, and every locale that Babel loads later would inherit
# root's answers ("M04" for April in Yoruba).
_ROOT = localedata.LocaleDataDict(copy.deepcopy(localedata.load("root")))


def split_of(items: tuple[Item, ...]) -> Split:
    """Return the split that a combination belongs to, whatever its order: one in ten is test."""
    key = "|".join(sorted(f"{kind}:{name}:{value}" for kind, name, value in items))
    return "test" if zlib.crc32(key.encode()) % 10 == 0 else "train"


def combinations(seed: int, split: Split | None = None) -> Iterator[tuple[Item, ...]]:
    """Draw combinations of items without end, the same for every language.

    Args:
        seed: A natural number; decides the stream, the same on every machine.
        split: Only the combinations of this split; None for all.

    Yields:
        One to three different items. Combinations repeat as chance has it.
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


class Phrasebook:
    """Renders items in one locale.

    Attributes:
        items: For each kind the names in `NAMES` that the locale translates.
    """

    def __init__(self, locale: str) -> None:
        """Find out what a locale translates.

        Args:
            locale: A Babel identifier, e.g. "zh_Hant"; `babel.UnknownLocaleError` if there is none.
        """
        self.locale = Locale.parse(locale)
        self._data = self.locale._data  # Babel has no public way to tell what is inherited
        self._rendered: dict[Item, str] = {}
        patterns = self.locale.list_patterns["standard"]
        self._lists = {place: text.translate(_LAYOUT) for place, text in patterns.items()}
        self.items = {
            kind: frozenset(name for name in names if self._translated(kind, name))
            for kind, names in NAMES.items()
        }

    def _translated(self, kind: str, name: str) -> bool:
        if kind == "date":
            return all(
                value != _ROOT[part]["format"]["wide"][key]
                for part in ("months", "days")
                for key, value in self._data[part]["format"]["wide"].items()
            )
        if kind in ("unit", "relative"):
            own, inherited = (
                self._patterns(kind, name, d).get("other") for d in (self._data, _ROOT)
            )
            return own not in (None, inherited)
        table = {"territory": "territories", "language": "languages", "currency": "currency_names"}
        return name in self._data[table[kind]]

    @staticmethod
    def _patterns(kind: str, name: str, data: Mapping) -> Mapping[str, str]:
        """Return the patterns of a unit or a relative time by plural category."""
        if kind == "relative":
            field, direction = name.split("-")
            return data["date_fields"].get(field, {}).get(direction, {})
        forms = data["unit_patterns"].get(name, {})
        long = forms.get("long", {})
        return long if "other" in long else forms.get("short", {})

    def can(self, items: tuple[Item, ...]) -> bool:
        """Return whether the locale translates each of the items."""
        return all(name in self.items[kind] for kind, name, _ in items)

    def render(self, items: tuple[Item, ...]) -> str:
        """Return the items as one phrase; ask `can` first."""
        first, *others = [self._rendered.get(item) or self._render(item) for item in items]
        if len(others) < 2:
            return self._lists["2"].format(first, *others) if others else first
        return self._lists["end"].format(self._lists["start"].format(first, others[0]), others[1])

    def _render(self, item: Item) -> str:
        kind, name, value = item
        match kind:
            case "territory":
                text = self.locale.territories[name]
            case "language":
                text = self.locale.languages[name]
            case "currency":
                text = format_currency(
                    value, name, locale=self.locale, format_type="name", currency_digits=False
                )
            case "date":
                text = format_date(datetime.date.fromordinal(value), "full", self.locale)
            case _:
                patterns = self._patterns(kind, name, self._data)
                pattern = patterns.get(self.locale.plural_form(value), patterns["other"])
                text = pattern.replace("{0}", str(value))
        self._rendered[item] = text = text.translate(_LAYOUT)
        return text


def _share(book: Phrasebook, same_as: Phrasebook | None = None) -> float:
    """Return the share of the items drawn that a locale translates, or renders like another."""

    def counted(kind: str, name: str) -> bool:
        item = kind, name, VALUES[kind][6] if kind in VALUES else 0  # 7 metres, the 7th of January
        return same_as is None or book.render((item,)) == same_as.render((item,))

    return sum(
        weight * sum(counted(kind, name) for name in book.items[kind]) / len(NAMES[kind])
        for kind, weight in KINDS.items()
    ) / sum(KINDS.values())


@cache
def phrasebook(language: str) -> Phrasebook:
    """Return the phrasebook of a language (the paper's code), made once.

    Raises:
        ValueError: The language is unknown, has no locale, or one that translates too little.
    """
    record = languages.get(language)
    if not record.cldr:
        covered = ", ".join(languages.codes("cldr"))
        raise ValueError(f"the cldr corpus has no {record.name} ({language}). There are: {covered}")
    book = Phrasebook(record.cldr)
    if (share := _share(book)) < THIN:
        raise ValueError(
            f"the cldr corpus has too little {record.name} ({language}): it can render "
            f"{share:.0%} of the items drawn, {THIN:.0%} are needed"
        )
    return book


def pairs(language: str, split: Split, size: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Return English phrases and their translation.

    Args:
        language: The paper's code; "en" gives each source as its own target.
        split: "train" or "test".
        size: How many pairs; `SPLITS` where None. There are always as many as asked for.
        seed: A natural number; decides which.

    Returns:
        A frame of `size` rows with columns `source` (English) and `target`; no combination of items
        comes twice, in whatever order. Wrong arguments are a ValueError or TypeError.
    """
    book, english = phrasebook(language), phrasebook("en")
    default = SPLITS[one_of("split", split, SPLITS)]
    size = default if size is None else operator.index(size)
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    rows: dict[frozenset[Item], tuple[str, str]] = {}
    for items in combinations(seed, split):
        if (key := frozenset(items)) not in rows and book.can(items):
            rows[key] = english.render(items), book.render(items)
            if len(rows) == size:
                break
    return pd.DataFrame(list(rows.values()), columns=["source", "target"])


def coverage() -> pd.DataFrame:
    """Return what each language with a locale translates.

    Returns:
        A frame indexed by the paper's code: `name`, `locale`, for each kind the number of names
        translated (of 120 territories, 62 languages, 20 units, 10 currencies, 1 date format and 14
        relative times); of the items drawn the `share` that it can render (0 to 1), and
        `as_english`, the share that comes out just as in English.
    """
    rows = {}
    for language in map(languages.get, languages.codes("cldr")):
        book = phrasebook(language.code)
        rows[language.code] = {
            "name": language.name,
            "locale": language.cldr,
            **{kind: len(names) for kind, names in book.items.items()},
            "share": _share(book),
            "as_english": _share(book, phrasebook("en")),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("code")
