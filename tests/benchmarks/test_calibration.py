"""The choice of the base by facts about LLaMA."""

from dataclasses import asdict

import pandas as pd

from benchmarks import calibration
from mlq_utils.modeling.pretraining_text import Mix


def test_recipes_can_be_made_and_at_most_two_are_added():
    assert len(calibration.RECIPES) <= 6
    for fields in calibration.RECIPES.values():
        mix = Mix(**{name: value for name, value in fields.items() if name != "steps"})
        assert asdict(mix)["traces"] <= Mix().traces


def test_the_recipe_with_the_most_facts_is_chosen_and_the_first_of_several():
    recorded = pd.read_csv(calibration.TABLE, index_col="recipe")
    assert set(recorded.index) <= {calibration.PACKAGED, *calibration.RECIPES}
    facts = calibration.met(recorded)
    assert list(facts) == list(calibration.FACTS)
    best = facts.loc[[name for name in calibration.RECIPES if name in facts.index]].sum(axis=1)
    assert calibration.chosen(recorded) == best[best == best.max()].index[0]
    like = {
        "named_share": 0.04, "copies": 0.9, "untuned": 3.3, "english_after": 24.6,
        "english_named": 18 / 19, "english_unnamed": 8 / 82, "afrikaans": 0.35, "romanian": 28.6,
    }  # fmt: skip
    assert calibration.met(pd.DataFrame(like, index=["LLaMA"])).all(axis=None)
