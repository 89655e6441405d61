"""The tuning prompt and the data in it."""

import pytest

from mlq_utils.corpora import cldr
from mlq_utils.corpora import loading as corpora
from mlq_utils.modeling import pretraining_text, prompts


def test_the_prompt():
    assert prompts.translation("ro", "May 4") == (
        "### Instruction:\nTranslate English to Romanian.\n### Input:\nMay 4\n### Response:\n"
    )


def test_braces_in_text_are_text():
    assert "{source}\n### Response" in prompts.prompt("Copy.", "{source}")


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match="'roo'"):
        prompts.translation("roo", "May 4")


def test_a_mixture_holds_what_was_asked_for():
    frame = prompts.mixture({"ro": 5, "km": 3}, seed=4)
    assert frame["language"].tolist() == ["ro"] * 5 + ["km"] * 3
    assert frame.attrs == {"pairs": {"ro": 5, "km": 3}}
    pairs = corpora.load("cldr", "km", "train", size=3, seed=4)
    assert frame["target"].tolist()[5:] == pairs["target"].tolist()
    assert frame["prompt"][5] == prompts.translation("km", pairs["source"][0])
    assert frame.equals(prompts.mixture({"ro": 5, "km": 3}, seed=4))
    assert not frame.equals(prompts.mixture({"ro": 5, "km": 3}, seed=5))


def test_all_there_are_where_a_corpus_has_fewer(flores):
    frame = prompts.mixture({"ro": 2000, "fr": 10}, corpus="flores200", split="dev", seed=1)
    none = {"repeated": 0, "in_evaluation": 0}
    assert frame.attrs == {"pairs": {"ro": 997, "fr": 10}, "left_out": {"ro": none, "fr": none}}
    assert frame["language"].value_counts().to_dict() == {"ro": 997, "fr": 10}
    assert frame.iloc[0].equals(
        prompts.mixture({"ro": 2000}, corpus="flores200", split="dev", seed=1).iloc[0]
    )


@pytest.mark.parametrize(
    "pairs, message", [({}, "no language"), ({"ro": 0}, "ro: .* not 0"), ({"rp": 5}, "'rp'")]
)
def test_a_mixture_of_nothing_is_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        prompts.mixture(pairs)


def test_english_tasks_are_others_than_those_of_pretraining():
    documents = pretraining_text.documents(0)
    seen = {
        text.split("\n")[1]
        for text in (next(documents).text for _ in range(2000))
        if text.startswith("### Instruction:")
    }
    frame = prompts.english_tasks(400, seed=3)
    asked = set(frame["prompt"].str.split("\n").str[1])
    assert len(seen) > 100 and asked == set(prompts.TASKS) and not seen & asked


def test_english_tasks_are_seeded_and_never_repeat():
    frame = prompts.english_tasks(3000)
    assert len(frame) == 3000 and frame["prompt"].is_unique
    assert set(frame["language"]) == {"en"} and (frame["target"] != "").all()
    assert frame.equals(prompts.english_tasks(3000))
    assert frame[:10].equals(prompts.english_tasks(10))
    assert not frame[:10].equals(prompts.english_tasks(10, seed=1))
    with pytest.raises(ValueError, match="not 0"):
        prompts.english_tasks(0)


def test_english_tasks_are_answered_rightly():
    romania, days = ("territory", "RO", 0), ("relative", "day-past", 7)
    if days[1] not in cldr.NAMES["relative"]:
        days = ("relative", next(n for n in cldr.NAMES["relative"] if n.startswith("day")), 7)
    render = cldr.phrasebook("en").render
    answers = {task: answer(render, (romania, days)) for task, answer in prompts.TASKS.items()}
    both, one, other = render((romania, days)), "Romania", render((days,))
    assert answers == {
        "Write the text in capital letters.": both.upper(),
        "Write the text in small letters.": both.lower(),
        "Sort the items alphabetically.": render((days, romania)),
        "Give the longest item.": max(one, other, key=len),
        "Give the shortest item.": min(one, other, key=len),
        "Remove the second item.": one,
        "Repeat the first item twice.": "Romania and Romania",
        "Does the text hold a number? Answer yes or no.": "yes",
    }
    assert prompts.TASKS["Remove the second item."](render, (romania,)) is None
