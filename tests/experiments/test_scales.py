"""The paper's settings, the mini world's, and anyone's own."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq_utils import languages, modeling, paper
from mlq_utils.experiments import scales, studies
from mlq_utils.experiments.scales import LAYERS, MINI, PAPER
from mlq_utils.experiments.tables import representatives, specs


def test_the_papers_scale_is_the_papers():
    said = paper.constants().set_index("name")["value"]
    assert PAPER.pairs == said["training_pairs"] and PAPER.depth == said["llama_layers"]
    assert PAPER.untuned.beam_size == said["beam_size"]
    assert PAPER.untuned.test_size == said["devtest_sentences"]
    assert PAPER.tuned(["ro"], size=160_000).size == 160_000
    pieces = {spec.extension.pieces for spec in specs([6]) if spec.extension}
    assert pieces == set(paper.table(6)["vocabulary_size"])
    assert len(PAPER.scorable()) == said["languages"]
    assert set(representatives()) == set(paper.table(11)["language"])
    model = PAPER.tuned(["ro"])
    steps = model.steps()
    assert (model.strategy, model.size, model.corpus) == ("embed", 10_000, ("lego_mt",))
    assert model.epochs == said["epochs"]
    assert (steps.learning_rate, steps.batch_size, steps.warmup_steps) == (2e-5, 128, 0.03)
    assert PAPER.seeded(model) == [model] and model.seed == 42 and model.cap == modeling.PAPER_CAP
    assert PAPER.datasets == scales.DATASETS
    assert PAPER.tuned(["ro"], "lora", 20_000).steps().learning_rate == 1e-4


def test_runs_of_the_mini_scale_are_those_of_the_studies():
    """With other targets: so their records count."""

    def settings(specs):
        return {dataclasses.replace(spec, targets=("ro",)) for spec in specs}

    by_language = [MINI.tuned([code]) for code in MINI.trainable("Ted")]
    assert settings(studies.specs("by_language")) == settings(
        one for model in by_language for one in MINI.seeded(model)
    )
    assert settings(studies.specs("untuned")) == settings(MINI.seeded(MINI.untuned))
    altruistic = [
        MINI.tuned([code], strategy, size)
        for code in ("vi", "tr", "ar")
        for strategy in ("embed", "full", "lora")
        for size in (10_000, 40_000, 160_000)
    ]
    made = settings(one for model in altruistic for one in MINI.seeded(model))
    assert made <= settings(studies.specs("altruistic_sizes"))
    instructed = settings(MINI.seeded(MINI.instructed("embed")))
    assert instructed <= settings(studies.specs("every_target"))


@given(st.integers(1, 100))
def test_a_layer_is_at_the_same_share_of_any_depth(depth):
    scale = dataclasses.replace(PAPER, depth=depth)
    found = {}
    for printed in range(LAYERS):
        try:
            found[printed] = scale.layer(printed)
        except ValueError as error:
            assert f"layer {printed} of 32 has no counterpart" in str(error)
    assert len(found) == len(set(found.values())) == min(depth, LAYERS)
    for printed, here in found.items():
        assert here <= printed / LAYERS * depth < here + 1 or depth < LAYERS
    assert list(found.values()) == sorted(found.values()) and max(found.values()) < depth
    assert scale.lowest(LAYERS) == tuple(range(depth))


def test_layers_of_the_two_scales():
    assert [PAPER.layer(n) for n in range(LAYERS)] == list(range(LAYERS))
    assert {n: MINI.layer(n) for n in (0, 8, 16, 24)} == {0: 0, 8: 1, 16: 2, 24: 3}
    assert PAPER.lowest(15) == tuple(range(15)) and MINI.lowest(15) == (0, 1)


def test_what_cannot_be_tuned_on_is_said():
    with pytest.raises(ValueError, match="ted: no Afrikaans"):
        PAPER.tuned(["af"], dataset="Ted")
    with pytest.raises(ValueError, match="wikimatrix and news_commentary: no Xhosa or Zulu"):
        PAPER.tuned(["xh", "ro", "zu"], dataset="New")
    assert len(PAPER.trainable("Ted")) == 52
    assert set(PAPER.trainable("New")) == {
        *languages.codes("wikimatrix"), *languages.codes("news_commentary")
    } - {"en"}  # fmt: skip


def test_a_scale_of_another_base(base):
    mine = scales.named("paper", base=str(base))
    assert mine.untuned.base == str(base) and mine.depth == 4
    assert mine.tuned(["ro"]).schedule == "paper"
    assert scales.named("mini") is MINI and scales.named("paper") is PAPER
    with pytest.raises(ValueError, match=r"unknown scale 'papre'\. Did you mean paper"):
        scales.named("papre")
    with pytest.raises(ValueError, match="revision 'x' without a base"):
        scales.named("mini", revision="x")
    with pytest.raises(FileNotFoundError, match="no model 'nowhere'"):
        scales.named("paper", base="nowhere")
