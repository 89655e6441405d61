"""The scales at which the paper is done again: the base model, the corpora, the sizes, the seeds.

Example::

    PAPER                                                     # LLaMA-7B, the real corpora, GPUs
    MINI                                                      # the packaged base on CLDR, two cores
    named("paper", base="owner/name", revision="<commit>")    # the paper's runs of your model

A scale turns a model of the paper into a `Spec`. The targets of that `Spec` are always `UNSCORED`,
since what a model is scored on depends on all tables that it serves; `tables` sets them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from mlq_utils import corpora, languages, modeling, scoring
from mlq_utils.corpora import inventory
from mlq_utils.data import PACKAGE_DATA, one_of
from mlq_utils.experiments.spec import Spec

DATASETS = dict(inventory.DATASETS.values())
"""The paper's datasets by their names in Table 2, in the order of Table 10, with their corpora."""
LAYERS = 32
"""Number of layers of LLaMA-7B."""
UNSCORED = Spec.targets
"""Targets of a model whose targets are not yet known. A specification cannot be without."""


@dataclass(frozen=True)
class Scale:
    """A base model with the data and sizes that the paper's runs have with it.

    Attributes:
        name: Name of the scale, shown on pages.
        untuned: The base itself, with the test set and the settings of translation.
        training: Fields of `Spec` that all tuned models share.
        depth: Number of layers of the base. A layer of the paper is represented by the layer at the
            same share of the depth.
        english: Source of English instructions, as `Spec.corpus`.
        pairs: Number of pairs for the paper's "at most 10k" (Tables 1, 2 and 12, Figure 2).
        share: Factor for the sizes that the other tables print.
        instructions: Maximum number of English instructions.
        piece_share: Factor for the numbers of new pieces in Table 6.
        texts: Text that pieces are learned from (`Extension.text`), by its name in Table 6. Of
            FLORES it is the dev split.
        rates: Learning rates by strategy for comparisons on reciprocal languages (Tables 3 and 15,
            Figure 3). Strategies without one use the schedule's rate.
        seeds: Random seeds. Every tuned model is made once per seed.
        datasets: Corpora that stand for each of `DATASETS`. Defaults to the paper's.
    """

    name: str
    untuned: Spec
    training: dict[str, Any] = field(hash=False)
    depth: int
    english: tuple[str, ...]
    pairs: int
    share: float
    instructions: int
    piece_share: float
    texts: dict[str, str] = field(hash=False)
    rates: dict[str, float] = field(hash=False)
    seeds: tuple[int, ...]
    datasets: dict[str, tuple[str, ...]] = field(default_factory=DATASETS.copy, hash=False)

    def check(self) -> None:
        """Refuse what would make every run fail, before the first one starts.

        Raises:
            FileNotFoundError, ConnectionError, ValueError: The base, the test set or the model of
                spBLEU is damaged, or is not on this machine and cannot be fetched.
        """
        modeling.configuration(self.untuned.base, self.untuned.revision)
        corpus, split = self.untuned.test
        corpora.load(corpus, self.scorable()[0], split)
        if corpus != "cldr":
            scoring.check_flores101()

    def trainable(self, dataset: str) -> list[str]:
        """Return the languages of a dataset's corpora, in the order of Table 8."""
        covered = {code for name in self.datasets[dataset] for code in languages.codes(name)}
        return [code for code in languages.codes() if code in covered and code != "en"]

    def scorable(self) -> list[str]:
        """Return the languages of the test set, in the order of Table 8."""
        return [code for code in languages.codes(self.untuned.test[0]) if code != "en"]

    def tuned(
        self,
        codes: Sequence[str],
        strategy: str = "embed",
        size: int | None = None,
        *,
        dataset: str = "Lego-MT",
        reciprocal: bool = False,
        **fields: Any,
    ) -> Spec:
        """Return a model tuned to translate from English into some languages.

        Args:
            codes: The languages.
            strategy: The strategy, as in `Spec`.
            size: Number of pairs that the paper prints. Defaults to "at most 10k" (Section 3).
            dataset: Training data, a key of `DATASETS`. Defaults to Lego-MT.
            reciprocal: Whether to use the learning rates in `rates`. Defaults to False.
            **fields: Further fields of `Spec`: `layers`, `shorten` or `extension`.

        Raises:
            ValueError: The dataset lacks a language, or `Spec` refuses the combination.
        """
        names = self.datasets[dataset]
        lacking = [languages.get(c).name for c in codes if c not in self.trainable(dataset)]
        if lacking:
            raise ValueError(f"{' and '.join(names)}: no {' or '.join(lacking)}")
        pairs = self.pairs if size is None else max(1, round(size * self.share))
        rate = self.rates.get(strategy) if reciprocal else None
        fields |= {"size": max(pairs, len(codes)), "corpus": names, "learning_rate": rate}
        return self._tuned(codes, strategy, **fields)

    def instructed(self, strategy: str, layers: tuple[int, ...] | None = None) -> Spec:
        """Return a model tuned on English instructions (Appendices C, G and H)."""
        given = {"size": self.instructions, "corpus": self.english, "layers": layers}
        return self._tuned(["en"], strategy, **given)

    def _tuned(self, codes: Sequence[str], strategy: str, **fields: Any) -> Spec:
        fields |= {"languages": tuple(codes), "strategy": strategy, "seed": self.seeds[0]}
        return dataclasses.replace(self.untuned, **fields, **self.training)

    def layer(self, printed: int) -> int:
        """Return the layer at the same share of the depth as a layer of LLaMA-7B.

        Raises:
            ValueError: The base has fewer layers, and this one already stands for a lower layer.
        """
        here = printed * self.depth // LAYERS
        if printed and (printed - 1) * self.depth // LAYERS == here:
            raise ValueError(
                f"layer {printed} of {LAYERS} has no counterpart of its own in {self.depth}"
            )
        return here

    def lowest(self, count: int) -> tuple[int, ...]:
        """Return the lowest layers, as large a share of the depth as `count` of LLaMA-7B's."""
        return tuple(range(max(1, round(count * self.depth / LAYERS))))

    def seeded(self, model: Spec) -> list[Spec]:
        """Return a model with each seed. The untuned base does not depend on a seed."""
        seeds = self.seeds if model.languages else [model.seed]
        return [dataclasses.replace(model, seed=seed) for seed in seeds]


SCALES = {
    name: TypeAdapter(Scale).validate_python({"name": name, **fields})
    for name, fields in yaml.safe_load((PACKAGE_DATA / "scales.yaml").read_text("utf8")).items()
}
"""The scales by name."""
PAPER, MINI = SCALES["paper"], SCALES["mini"]


def named(name: str, *, base: str | None = None, revision: str | None = None) -> Scale:
    """Return a scale, with another base model if one is given.

    Args:
        name: The scale, a key of `SCALES`.
        base: Base model, as `modeling.load` takes it. Defaults to the scale's own.
        revision: Commit of that base if it is on the Hub.

    Raises:
        ValueError: The scale is unknown, or there is a revision without a base.
        FileNotFoundError, ConnectionError: The configuration of the base is neither on this machine
            nor can it be fetched.
    """
    scale = SCALES[one_of("scale", name, SCALES)]
    if base is None:
        if revision is not None:
            raise ValueError(f"revision {revision!r} without a base: give both")
        return scale
    depth = modeling.configuration(base, revision).get_text_config().num_hidden_layers
    label = Path(base).name if Path(base).is_dir() else base  # pages show no path of a machine
    untuned = dataclasses.replace(scale.untuned, base=base, revision=revision)
    return dataclasses.replace(scale, name=f"{name}, {label}", untuned=untuned, depth=depth)
