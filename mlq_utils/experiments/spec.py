"""What a run is: its specification, its identity, and its scores in tidy form.

    spec = Spec(languages=("ro",), targets=("ro", "fr", "af"))
    record = run(spec)
    scores([record])

A specification is a value. Its identity is a hash of everything that changes the result: the
specification itself, the files of the base model, the version of the CLDR data and the version of
this code's semantics. The host, the search engine and the time do not count. Nothing here imports
torch, so that records can be read without it.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from babel.core import get_cldr_version
from pydantic import TypeAdapter, ValidationError

from mlq_utils import corpora, experiments, languages
from mlq_utils.corpora import Pairs
from mlq_utils.data import HUB_NAME, PACKAGE_DATA, one_of, sha256
from mlq_utils.experiments.store import Store
from mlq_utils.languages import Language
from mlq_utils.modeling.bases import digest
from mlq_utils.modeling.extension import Extension
from mlq_utils.modeling.strategies import Schedule
from mlq_utils.scoring import intervals
from mlq_utils.tokenization import PREFIXES

SEMANTICS = 2
"""Version of the code's semantics. Raise it when the same specification gives another result."""
ENGLISH = ("cldr", "alpaca")
"""Sources of English-only instructions (Appendix C)."""
LATER = ("shorten", "cap", "extension", "corpus", "test", "schedule", "revision", "spare_rows")
LATER += ("pairs", "test_pairs", "language", "into_english", "panel", "replay", "ciphers")
"""Fields of `Spec` that are omitted from the hash at their default, so that old keys stay valid."""
STORE = os.environ.get("MLQ_STORE") or "_build/store"
"""The default store: a folder, or a URL such as s3://bucket/runs. MLQ_STORE sets it."""
SHIPPED = PACKAGE_DATA / "runs"
"""The records that come with the package."""
TEST_SEED = 0
"""Random seed for the test sentences: all runs are scored on the same ones."""
TASKS = "tasks"
"""What stands for English tasks in a panel."""
COMMIT = re.compile(r"[0-9a-f]{40}")
_opened = cache(Store)


@dataclass(frozen=True)
class Spec:
    """The specification of a run.

    Attributes:
        languages: Languages to tune on, as the paper's codes; each is translated into from English.
            `en` alone stands for English-only tasks (Appendix C). Empty for the untuned model.
        targets: Languages to score, translated into from English.
        strategy: What to train, a key of `modeling.STRATEGIES`. Defaults to "embed".
        size: Number of training pairs, shared equally by the languages. Defaults to 600.
        test_size: Number of test sentences per target. Defaults to 40.
        learning_rate: Peak learning rate. Defaults to the strategy's own.
        epochs: Passes over the training data. Defaults to 3.
        batch_size: Examples per step. Defaults to 32.
        layers: Indices of the layers to train, for the strategy "layers".
        seed: Random seed for sampling and shuffling the training pairs. Defaults to 0.
        beam_size: Number of beams. Defaults to 4, as in the paper.
        base: Base model, as `modeling.load` takes it. Defaults to the packaged one, "mini".
        shorten: How to shorten byte sequences (Section 4.3), a key of `tokenization.PREFIXES`. The
            prefix is chosen on the training targets. None shortens nothing.
        cap: Maximum number of new tokens. Defaults to a cap scaled to the target
            (`translation.scaled_cap`).
        extension: Vocabulary extension, learned from text in the one language that is tuned on.
            None keeps the vocabulary.
        corpus: Training corpora, of `corpora.NAMES`. For English-only tasks one of `ENGLISH`.
        test: Corpus and split to score on. Of corpora other than cldr, the first `test_size`
            sentences are taken, and scores are sacrebleu's spBLEU with `flores101`.
        schedule: "mini", or "paper" for the paper's steps and rates (`modeling.Schedule`).
        revision: Commit of a base on the Hub. Branches and tags are refused, since they can move.
        spare_rows: Number of embedding rows that the base may have beyond its tokenizer's
            vocabulary. Defaults to 0.
        pairs: Your own pairs of English and the language that is tuned on. Before tuning they are
            cleaned (`corpora.clean`). If `test` is cldr and there are no `test_pairs`, the first
            `test_size` of them in a drawn order are tested on instead. An untuned model is tested
            on them in its first target.
        test_pairs: Your own test set of that language, of which the first `test_size` are taken.
            Scores count the pieces that belong to `test`: for prose, let that be flores200.
        language: A language that is neither in the paper nor in CLDR, used by its code.
        into_english: Whether the languages are translated into English instead.
        panel: Languages of which the model also reads the test sentences, English (`en`) among
            them. It takes one forward pass, and gives bits per character. `tasks` stands for the
            answers to `test_size` English tasks: those of CLDR, drawn with a seed of their own, or
            if `corpus` is another, those of Alpaca, which tuning on Alpaca may have seen.
        replay: Number of examples in the panel's languages that are added to the training pairs, so
            that less of these is lost: pairs, and for English the tasks of CLDR or, if `corpus` is
            another, those of Alpaca. They are shared equally. Defaults to 0.
        ciphers: Languages whose letters the base has met as signs (`Mix.ciphers`). Their phrases
            are enciphered for the model, and what it answers is deciphered before it is scored.
    """

    languages: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("ro",)
    strategy: str = "embed"
    size: int = 600
    test_size: int = 40
    learning_rate: float | None = None
    epochs: int = 3
    batch_size: int = 32
    layers: tuple[int, ...] | None = None
    seed: int = 0
    beam_size: int = 4
    base: str = "mini"
    shorten: str | None = None
    cap: int | None = None
    extension: Extension | None = None
    corpus: tuple[str, ...] = ("cldr",)
    test: tuple[str, str] = ("cldr", "test")
    schedule: str = "mini"
    revision: str | None = None
    spare_rows: int = 0
    pairs: Pairs | None = None
    test_pairs: Pairs | None = None
    language: Language | None = None
    into_english: bool = False
    panel: tuple[str, ...] = ()
    replay: int = 0
    ciphers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            ValueError: A name is unknown or repeated, a corpus lacks a language or split, a number
                is below 1, or settings contradict each other.
        """
        if self.language is not None and self.language.code in languages.codes():
            taken = f"{self.language.code!r} is taken by {languages.get(self.language.code).name}"
            raise ValueError(f"the code {taken}: choose another one")
        languages.check(map(self.spoken, self.languages))
        if not languages.check(map(self.spoken, self.targets)):
            raise ValueError("no targets: name the languages to score")
        languages.check(self.spoken(code) for code in self.panel if code != TASKS)
        for name in ("size", "test_size", "epochs", "batch_size", "beam_size", "cap"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.size < len(self.languages):
            raise ValueError(f"{self.size} pairs are fewer than {len(self.languages)} languages")
        self.steps()  # refuses an unknown strategy or schedule
        self._check_corpora()
        if self.extension is not None and (len(self.languages) != 1 or self.shorten is not None):
            raise ValueError(
                "extension needs exactly one language, from which its pieces are learned, and "
                f"unshortened sequences: languages={self.languages}, shorten={self.shorten!r}"
            )
        drawn_from = self.languages and set(self.panel) - {TASKS}
        if self.replay < 0 or (self.replay and not drawn_from):
            raise ValueError(
                f"replay={self.replay} needs languages to tune on, and a panel to draw from"
            )
        if self.ciphers and (self.test[0] != "cldr" or self.corpus != ("cldr",) or self.pairs):
            raise ValueError(f"only phrases of CLDR are enciphered: ciphers={self.ciphers}")
        if self.strategy == "rows" and self.languages and self.extension is None:
            raise ValueError("the strategy rows trains new pieces: give an extension")
        if self.shorten is not None:
            one_of("way to shorten", self.shorten, PREFIXES)
            if not self.languages:
                raise ValueError(
                    "shorten needs languages: the prefix is chosen on the training targets"
                )
        remote = HUB_NAME.fullmatch(self.base) and not Path(self.base).expanduser().is_dir()
        if remote and not COMMIT.fullmatch(self.revision or ""):
            raise ValueError(
                f"base {self.base!r} is on the Hub: its revision must be a commit, 40 hexadecimal "
                f"digits (huggingface.co/{self.base}/commits/main shows them), not "
                f"{self.revision!r}: a branch moves, and the record would be of another model"
            )

    def spoken(self, code: str) -> str | Language:
        """Return the language of this run with a code, as `languages.get` takes it."""
        return self.language if self.language and self.language.code == code else code

    @property
    def own(self) -> str:
        """The code of the language of `pairs` and `test_pairs`, or "" if there are none."""
        return (self.languages or self.targets)[0] if self.pairs or self.test_pairs else ""

    @property
    def held_out(self) -> bool:
        """Whether the test sentences of the own language are taken from `pairs`."""
        return bool(self.pairs and not self.test_pairs and self.test[0] == "cldr")

    def untuned(self) -> "Spec":
        """Return the run of the base model that this run's scores are compared with."""
        tuning = ("languages", "strategy", "size", "learning_rate", "epochs", "batch_size")
        tuning += ("layers", "seed", "shorten", "extension", "corpus", "schedule", "replay")
        usual = {name: getattr(Spec, name) for name in tuning}
        if self.own in self.targets:  # own pairs are those of an untuned run's first target
            usual["targets"] = tuple(sorted(self.targets, key=lambda code: code != self.own))
        else:
            usual |= {"pairs": None, "test_pairs": None}
        return replace(self, **usual)

    def _check_corpora(self) -> None:
        if self.own and (len(self.languages) > 1 or self.own == "en"):
            raise ValueError(f"own pairs are of one language, not of {'+'.join(self.languages)}")
        if self.into_english and self.languages == ("en",):
            raise ValueError("English is translated into another language, not into itself")
        elsewhere = self.own if self.held_out or self.test_pairs else ""
        targets = [c for c in (*self.targets, *self.panel) if c not in (elsewhere, TASKS)]
        used, wanted = [self.test], [(self.test[:1], targets)]
        if self.extension is not None and not Path(self.extension.text).is_file():
            wanted.append(((self.extension.text,), self.languages[:1]))
        if self.languages == ("en",):
            one_of("source of English instructions", "+".join(self.corpus), ENGLISH)
        elif not self.pairs or self.replay:
            used += [(name, "train") for name in self.corpus]
            again = [c for c in self.panel if self.replay and c not in ("en", TASKS)]
            wanted.append((self.corpus, [*(() if self.pairs else self.languages), *again]))
        for name, split in used:
            one_of("corpus", name, corpora.NAMES)
            one_of(f"split of {name}", split, corpora.CORPORA[name].splits)
        for names, codes in wanted:
            for code in codes:
                if not any(languages.covers(name, self.spoken(code)) for name in names):
                    covered = [code for name in names for code in languages.codes(name)]
                    one_of(f"language of {'+'.join(names)}", code, covered)

    def steps(self) -> Schedule:
        """Return the training schedule."""
        kinds = {"mini": Schedule.mini, "paper": Schedule.paper}
        changes = {"epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed}
        if self.learning_rate is not None:
            changes["learning_rate"] = self.learning_rate
        return kinds[one_of("schedule", self.schedule, kinds)](self.strategy, **changes)

    def run(self, store: Store, **options: Any) -> dict[str, Any]:
        """Make the run, see `experiments.run`."""
        return experiments.run(self, store, **options)

    def cost(self) -> int:
        """Return roughly how long the run takes, relative to other runs of the same base.

        The unit is one example in training. One beam of one sentence takes about as long.
        """
        trained = (self.size + self.replay) * self.epochs if self.languages else 0
        return trained + len(self.targets) * self.test_size * self.beam_size

    def identity(self) -> str:
        """Return the run's key: 64 hexadecimal digits."""
        values = asdict(self)
        for name in LATER:
            if getattr(self, name) == getattr(Spec, name):
                del values[name]
        for name in ("pairs", "test_pairs"):
            if given := getattr(self, name):
                values[name] = given.sha256  # wherever the file lies
        if self.language is not None:
            blank = asdict(Language("x", "x", "Latn"))
            given = asdict(self.language).items()
            values["language"] = {k: v for k, v in given if v != blank[k]}
        if self.extension is not None and self.extension.text == Extension.text:
            del values["extension"]["text"]  # this field was added after the first records, too
        elif self.extension is not None and (own := Path(self.extension.text)).is_file():
            values["extension"]["text"] = sha256(own)
        parts = {
            "spec": values,
            "base": digest(self.base),
            "cldr": get_cldr_version(),
            "semantics": SEMANTICS,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_READER = TypeAdapter(Spec)


def spec_of(record: Mapping[str, Any]) -> Spec:
    """Return the specification of a record. Fields that older records lack have their default."""
    return _READER.validate_python(record["spec"])


def read_spec(path: str | Path) -> Spec:
    """Return the specification that a YAML file describes.

    Raises:
        ValueError: The file is not a mapping, or a field is unknown or has a wrong type.
        FileNotFoundError: There is no such file.
    """
    try:
        values = yaml.safe_load(Path(path).read_text("utf8"))
        if not isinstance(values, dict):
            raise ValueError("expected the fields of a run, one `name: value` per line")
        groups = [("a run", values, Spec), ("an extension", values.get("extension"), Extension)]
        groups += [(f"`{name}`", values.get(name), Pairs) for name in ("pairs", "test_pairs")]
        groups += [("a language", values.get("language"), Language)]
        for kind, given, known in groups:
            for name in given if isinstance(given, dict) else ():
                one_of(f"field of {kind}", str(name), [field.name for field in fields(known)])
        # JSON has no tuples, so that a list is one; strict mode converts no other types.
        return _READER.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        told = f"{where}: {wrong['msg']}, not {wrong['input']!r}"
        if wrong["type"] == "value_error":  # our own message, which names the field
            told = wrong["ctx"]["error"]
        raise ValueError(f"{path}: {told}") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None


def default_store() -> Store:
    """Return the default store, with the shipped records behind it, which are read once."""
    return _opened(STORE, SHIPPED)


def scores(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the scores of records in tidy form.

    Returns:
        One row per run and target. The columns are settings (`tuned_on`, which is "" for the
        untuned model; `layers`, `corpus` and `test` as text; `into_english`; `strategy`, `size`,
        `epochs`, `learning_rate`, `seed`, `replay`, `shorten`, `cap`; the fields of `Extension`),
        then `target`, `spbleu`, `spbleu_low`, `spbleu_high`, `chrf`, `cap_hit_rate`, the number of
        `sentences`, the number of them with each kind of error, the bits of the references after
        their prompts as `reference_bits_per_char`, and the numbers of sentences by language
        `found`, a dictionary. The last two are None in records that are older than them.
    """
    rows = []
    for record in records:
        shared = _settings(record)
        for score in record.get("scores", []):
            columns = ("target", "spbleu", "spbleu_low", "spbleu_high", "chrf", "cap_hit_rate")
            shown = {name: score[name] for name in columns} | score["errors"]
            later = {name: score.get(name) for name in ("reference_bits_per_char", "found")}
            rows.append(shared | shown | later)
    return pd.DataFrame(rows)


def losses(before: dict[str, Any], after: dict[str, Any]) -> pd.DataFrame:
    """Return what tuning changed in each language, for each measure the most lost first.

    Args:
        before: Record of the untuned model, such as that of `Spec.untuned`.
        after: Record of the tuned model.

    Returns:
        One row per measure and language that both records have: `measure` ("spbleu", or
        "bits_per_char" of the panel, where more is worse), `language`, `before`, `after`, `change`
        and its 95% interval `low`, `high`. Bits are compared sentence by sentence. Scores are
        taken as independent, which makes their intervals rather too wide.
    """
    rows, ends = [], ("spbleu_low", "spbleu_high")
    old = {row["target"]: row for row in before.get("scores", [])}
    for row in after.get("scores", []):
        if one := old.get(row["target"]):
            change = row["spbleu"] - one["spbleu"]
            half = math.hypot(*((each[ends[1]] - each[ends[0]]) / 2 for each in (one, row)))
            points = one["spbleu"], row["spbleu"], change, change - half, change + half
            rows.append((-change, "spbleu", row["target"], *points))
    old = {row["language"]: row for row in before.get("panel", [])}
    for row in after.get("panel", []):
        if one := old.get(row["language"]):
            first, second = (np.array(each["bits"], dtype=float) for each in (one, row))
            change, low, high, _ = intervals.ratio(second - first, row["characters"])
            points = one["bits_per_char"], row["bits_per_char"], change, low, high
            rows.append((change, "bits_per_char", row["language"], *points))
    names = ["lost", "measure", "language", "before", "after", "change", "low", "high"]
    frame = pd.DataFrame(rows, columns=names).sort_values(["measure", "lost"], ascending=False)
    return frame.drop(columns="lost").reset_index(drop=True)


def lost(changes: pd.DataFrame, languages: Sequence[str]) -> str:
    """Return in words what `losses` names as surely lost, in other than the tuned languages."""
    worse = changes["change"].where(changes["measure"] == "bits_per_char", -changes["change"]) > 0
    sure = changes["low"] * changes["high"] > 0
    found = changes[worse & sure & ~changes["language"].isin(languages)]
    words = {"spbleu": "{} {:+.1f} spBLEU", "bits_per_char": "{} {:+.2f} bits per character"}
    told = [words[row.measure].format(row.language, row.change) for row in found.itertuples()]
    return ", ".join(told) or "nothing beyond the intervals"


def costs(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the time that each run took.

    Returns:
        One row per run that tuned, with its settings (as in `scores`), `tokens_per_sentence` (label
        tokens in training, including the end of the sentence), `seconds` of training,
        `label_tokens_per_second`, `translation_seconds` (all targets) and `hardware`.
    """
    rows = []
    for record in records:
        if spent := record.get("training"):
            seen = spent["examples"] * record["spec"]["epochs"]
            tokens = spent["label_tokens_per_second"] * spent["seconds"]
            rows.append(
                _settings(record)
                | {"tokens_per_sentence": tokens / seen}
                | {name: spent[name] for name in ("seconds", "label_tokens_per_second")}
                | {"translation_seconds": sum(row["seconds"] for row in record["scores"])}
                | {"hardware": record["hardware"]}
            )
    return pd.DataFrame(rows)


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as the columns of one row."""
    spec = spec_of(record)
    names = ("strategy", "size", "epochs", "learning_rate", "seed", "replay", "shorten", "cap")
    return {
        "tuned_on": "+".join(spec.languages),
        "layers": "+".join(map(str, spec.layers or ())),
        "corpus": "+".join(spec.corpus),
        "test": " ".join(spec.test),
        "into_english": spec.into_english,
        **{name: getattr(spec, name) for name in names},
        **{field.name: getattr(spec.extension, field.name, None) for field in fields(Extension)},
    }
