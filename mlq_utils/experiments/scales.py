"""At which scale the paper is done again: the base, the corpora, the sizes, and its models there.

    PAPER                                              # LLaMA-7B, the real corpora, GPUs
    MINI                                               # the packaged base on CLDR, two cores
    named("paper", base="owner/name", revision="<commit>")     # the paper's runs of your model

A model of the paper is here a `Spec` with `UNSCORED` for its targets: what it is scored on depends
on every table that it serves, and `replication` decides.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlq_utils import corpora, languages, modeling, paper, scoring
from mlq_utils.data import one_of
from mlq_utils.experiments import studies
from mlq_utils.experiments.spec import Spec
from mlq_utils.modeling.extension import Extension
from mlq_utils.modeling.settings import PAPER_CAP

DATASETS = {
    "Lego-MT": ("lego_mt",),
    "New": ("wikimatrix", "news_commentary"),
    "Ted": ("ted",),
}
"""The paper's datasets, by their names in Table 2, in the order of Table 10."""
TEST = ("flores101" if "flores101" in corpora.NAMES else "flores200", "devtest")
PIECES = (3000, 6000, 12000)
"""New pieces in a vocabulary, as printed in Table 6."""
TEXTS = {"mC4": "mc4", "Flores": TEST[0]}
"""The text that pieces are learned from, by its name in Table 6; of FLORES the dev split."""
LAYERS = 32
"""Layers of LLaMA-7B."""
UNSCORED = ("ro",)
"""Targets of a model that is scored on nothing yet; a specification cannot be without."""


@dataclass(frozen=True)
class Scale:
    """Where the paper's runs are made, and how large they are.

    Attributes:
        name: What it is called.
        base, revision, spare_rows: The base model, as in `Spec`.
        depth: Its layers. A layer of the paper is the one at the same share of the depth.
        datasets: The corpora that stand for each of `DATASETS`; tables on one that is left out
            have no runs.
        english: The source of English instructions, as `Spec.corpus`.
        test, test_size, schedule, batch_size, epochs, beam_size: As in `Spec`.
        cap: New tokens at most; scaled to the language where None. The released evaluation has
            256 for all languages, which cuts most references of some: show both.
        pairs: What stands for the paper's "at most 10k" (Tables 1, 2 and 12, Figure 2).
        share: What the sizes printed in the other tables are multiplied by.
        instructions: English instructions at most (52,002 in Alpaca).
        pieces: New pieces in a vocabulary, in the place of `PIECES`.
        texts: What they are learned from (`Extension.text`), by its name in Table 6.
        rates: Learning rates by strategy where reciprocal languages are compared (Tables 3 and
            15, Figure 3); the schedule's own where it has none.
        seeds: Each tuned model is made with each.
    """

    name: str
    base: str
    revision: str | None = None
    spare_rows: int = 0
    depth: int = LAYERS
    datasets: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: dict(DATASETS), hash=False
    )
    english: tuple[str, ...] = ("alpaca",)
    test: tuple[str, str] = TEST
    test_size: int = 1012
    schedule: str = "paper"
    batch_size: int = 128
    epochs: int = 3
    beam_size: int = 4
    cap: int | None = PAPER_CAP
    pairs: int = 10_000
    share: float = 1.0
    instructions: int = 52_002
    pieces: tuple[int, ...] = PIECES
    texts: Mapping[str, str] = field(default_factory=lambda: dict(TEXTS), hash=False)
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    seeds: tuple[int, ...] = (42,)

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            ValueError: Unknown dataset, corpus, split, strategy or schedule, or a number that is
                none of its kind.
        """
        for dataset, names in self.datasets.items():
            one_of("dataset of the paper", dataset, DATASETS)
            for name in names:
                one_of("corpus", name, corpora.NAMES)
        for strategy in self.rates:
            one_of("strategy", strategy, modeling.STRATEGIES)
        for name in ("depth", "pairs", "share", "instructions"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if len(self.pieces) != len(PIECES) or not self.seeds:
            raise ValueError(
                f"a scale needs {len(PIECES)} numbers of new pieces and one seed or more: "
                f"pieces={self.pieces}, seeds={self.seeds}"
            )
        self.instructed("embed")  # a wrong field of all specifications is refused here

    def check(self) -> None:
        """Refuse what every run would fail by, before any is made.

        Raises:
            FileNotFoundError, ConnectionError, ValueError: The base, the test set or the model of
                spBLEU is not here and cannot be fetched, or is damaged.
        """
        modeling.configuration(self.base, self.revision)
        corpora.load(self.test[0], self.scorable()[0], self.test[1])
        if self.test[0] != "cldr":
            scoring.check_flores101()

    def trainable(self, dataset: str) -> list[str]:
        """Return the languages that the corpora of a dataset have, in the order of Table 8."""
        having = {code for name in self.datasets.get(dataset, ()) for code in languages.codes(name)}
        return [code for code in languages.codes() if code in having and code != "en"]

    def scorable(self) -> list[str]:
        """Return the languages that the test set has, in the order of Table 8."""
        return [code for code in languages.codes(self.test[0]) if code != "en"]

    def untuned(self) -> Spec:
        """Return the base as it is."""
        return Spec(targets=UNSCORED, **self._scoring())

    def tuned(
        self,
        codes: Sequence[str],
        strategy: str = "embed",
        size: int | None = None,
        *,
        dataset: str = "Lego-MT",
        layers: tuple[int, ...] | None = None,
        reciprocal: bool = False,
        **fields: str | Extension,
    ) -> Spec:
        """Return a model tuned on English into some languages.

        Args:
            codes: The languages.
            strategy: As in `Spec`.
            size: Printed pairs; at most 10k, as in Section 3, where None.
            dataset: A key of `DATASETS`.
            layers: As in `Spec`.
            reciprocal: Whether `rates` hold.
            **fields: `shorten` or `extension`, as in `Spec`.

        Raises:
            ValueError: The dataset lacks a language, or `Spec` refuses the combination.
        """
        names = self.datasets.get(dataset)
        if not names:
            raise ValueError(f"no corpus stands for {dataset} at this scale")
        lacking = [languages.get(c).name for c in codes if c not in self.trainable(dataset)]
        if lacking:
            raise ValueError(f"{' and '.join(names)}: no {' or '.join(lacking)}")
        pairs = self.pairs if size is None else self.scaled(size)
        return self._tuned(
            tuple(codes),
            strategy,
            max(pairs, len(codes)),
            corpus=names,
            layers=layers,
            learning_rate=self.rates.get(strategy) if reciprocal else None,
            **fields,
        )

    def instructed(self, strategy: str, layers: tuple[int, ...] | None = None) -> Spec:
        """Return a model tuned on English instructions (Appendices C, G and H)."""
        return self._tuned(("en",), strategy, self.instructions, corpus=self.english, layers=layers)

    def scaled(self, size: int) -> int:
        """Return what stands for a printed number of pairs."""
        return max(1, round(size * self.share))

    def layer(self, printed: int) -> int:
        """Return the layer at the same share of the depth as one of LLaMA-7B's.

        Raises:
            ValueError: The base has fewer layers, and the one below stands for it.
        """
        here = printed * self.depth // LAYERS
        if printed and (printed - 1) * self.depth // LAYERS == here:
            raise ValueError(
                f"layer {printed} of {LAYERS} has no counterpart of its own in {self.depth}"
            )
        return here

    def lowest(self, printed: int) -> tuple[int, ...]:
        """Return the lowest layers, as many in proportion as so many of LLaMA-7B's."""
        return tuple(range(max(1, round(printed * self.depth / LAYERS))))

    def seeded(self, model: Spec) -> list[Spec]:
        """Return a model with each seed; the base itself has none."""
        if not model.languages:
            return [model]
        return [dataclasses.replace(model, seed=seed) for seed in self.seeds]

    def _tuned(self, codes: tuple[str, ...], strategy: str, size: int, **fields: object) -> Spec:
        return Spec(
            languages=codes,
            targets=UNSCORED,
            strategy=strategy,
            size=size,
            schedule=self.schedule,
            batch_size=self.batch_size,
            epochs=self.epochs,
            seed=self.seeds[0],
            **fields,
            **self._scoring(),
        )

    def _scoring(self) -> dict[str, object]:
        names = ("base", "revision", "spare_rows", "test", "test_size", "beam_size", "cap")
        return {name: getattr(self, name) for name in names}


PAPER = Scale(
    name="paper",
    base="huggyllama/llama-7b",
    revision="4782ad278652c7c71b72204d462d6d01eaaf7549",
)
"""The paper's: its steps are `training.Schedule.paper`."""
MINI = Scale(
    name="mini",
    base="mini",
    depth=4,
    datasets=dict.fromkeys(DATASETS, ("cldr",)),
    english=("cldr",),
    test=("cldr", "test"),
    test_size=40,
    schedule="mini",
    batch_size=32,
    cap=None,
    pairs=studies.PAIRS,
    share=0.01,
    instructions=studies.PAIRS,
    pieces=studies.PIECES,
    texts={"mC4": "cldr"},
    rates=studies.SPARING_RATES,
    seeds=studies.SEEDS,
)
"""The packaged base on CLDR phrases, which stand for all three datasets. Sizes, rates and seeds are
those of `studies`, whose records therefore count where the settings are the same."""


SCALES = {scale.name: scale for scale in (PAPER, MINI)}


def named(name: str, *, base: str | None = None, revision: str | None = None) -> Scale:
    """Return a scale, for another base where one is given.

    Args:
        name: A key of `SCALES`.
        base: What `modeling.load` takes; the scale's own where None.
        revision: Its commit, of a base on the Hub.

    Raises:
        ValueError: Unknown name, or a revision without a base.
        FileNotFoundError, ConnectionError: The base has no configuration here, or cannot be asked.
    """
    scale = SCALES[one_of("scale", name, SCALES)]
    if base is None:
        if revision is not None:
            raise ValueError(f"revision {revision!r} without a base: give both")
        return scale
    depth = modeling.configuration(base, revision).get_text_config().num_hidden_layers
    called = Path(base).name if Path(base).is_dir() else base  # pages show no path of a machine
    return dataclasses.replace(
        scale, name=f"{name}, {called}", base=base, revision=revision, depth=depth
    )


@cache
def representatives() -> tuple[str, ...]:
    """Return the languages that models are scored on in Table 12, in the order of its columns."""
    columns = paper.table(12).query("role == 'representative'")["target"]
    return tuple(dict.fromkeys(columns))
