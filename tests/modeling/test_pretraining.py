"""The base model's text and training: what may not occur in it, and that a run can be resumed."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlq_utils import languages, tokenization
from mlq_utils.corpora import cldr
from mlq_utils.modeling import precision, pretraining, pretraining_text

SMALL = pretraining.RECIPE | {
    "vocabulary_size": 700,
    "tokenizer_documents": 1500,
    "sequence_length": 32,
    "batch_size": 2,
    "steps": 6,
    "warmup_steps": 2,
}


@pytest.fixture(scope="module")
def drawn():
    return list(islice(pretraining_text.documents(3), 12_000))


def test_documents_follow_the_shares(drawn):
    kinds = Counter(d.kind for d in drawn)
    traces = kinds.pop("trace") / len(drawn)
    # A few are redrawn, where a language lacks an item.
    mix = pretraining_text.Mix()
    assert traces == pytest.approx(mix.traces, abs=0.012)
    for kind, share in {"task": mix.tasks, "english": mix.english, "other": mix.other}.items():
        assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.02)


def test_a_mix_leaves_out_what_it_is_told_to():
    mix = pretraining_text.Mix(traces=0, tasks=0, phrasings=1, arguments=False)
    drawn = list(islice(pretraining_text.documents(3, mix), 2000))
    assert {d.kind for d in drawn} == {"english", "other", "meeting"}
    for document in drawn:
        if document.kind == "meeting":
            name = languages.get(document.languages[1]).name
            assert f" ({name}: " in document.text and not document.answer
    tasks = pretraining_text.Mix(tasks=0.85, other=0, arguments=False)
    prompts = islice(pretraining_text.documents(3, tasks), 2000)
    instructions = {d.text.split("\n")[1] for d in prompts if d.kind == "task"}
    assert len(instructions) == 6


def test_a_dose_comes_on_top_of_a_languages_traces():
    mix = pretraining_text.Mix(traces=0.02, doses={"af": 0.1, "id": 0.05})
    drawn = list(islice(pretraining_text.documents(3, mix), 12_000))
    shares = Counter(c for d in drawn if d.kind == "trace" for c in d.languages)
    expected = pretraining_text.trace_languages(3, mix)
    assert sum(expected.values()) == pytest.approx(0.17)
    for code in mix.doses:  # a few are redrawn, where a language lacks an item
        assert shares[code] / len(drawn) == pytest.approx(expected[code], abs=0.012)


def test_languages_change_places():
    mix = pretraining_text.Mix(exchanged=[("es", "tr"), ("pt", "ha")])
    drawn = list(islice(pretraining_text.documents(3, mix), 6000))
    kinds = {kind: set() for kind in ("other", "meeting", "trace")}
    for document in drawn:
        kinds.setdefault(document.kind, set()).update(document.languages)
    assert {"tr", "ha"} <= kinds["other"] & kinds["meeting"]
    assert not {"es", "pt"} & (kinds["other"] | kinds["meeting"])
    traces = pretraining_text.trace_languages(3, mix)
    assert {"es", "pt"} <= set(traces) and not {"tr", "ha"} & set(traces)
    assert sum(traces.values()) == pytest.approx(mix.traces)


def test_tasks_have_another_form_than_the_prompt():
    mix = pretraining_text.Mix(tasks=0.9, other=0, english=0.1, traces=0, prompted=False)
    for document in islice(pretraining_text.documents(3, mix), 300):
        assert "###" not in document.text
        assert (document.kind == "task") == document.text.endswith("\n<< ")


def test_an_enciphered_language_is_in_the_text_and_not_in_the_vocabulary():
    recipe = SMALL | {"mix": SMALL["mix"] | {"ciphers": ["hu", "en"]}, "pieces": ["km"]}
    tokenizer = pretraining.train_tokenizer(0, recipe | {"vocabulary_size": 900})
    with cldr.enciphered(("hu", "en")):
        pairs = cldr.pairs("hu", "test", 20)
    assert len(tokenizer.encode(["".join(pairs["target"])])[0]) > 2 * len("".join(pairs["target"]))
    assert len(tokenizer.encode(["".join(pairs["source"])])[0]) < len("".join(pairs["source"]))
    plain = pretraining.train_tokenizer(0, SMALL | {"vocabulary_size": 900})
    khmer = cldr.pairs("km", "test", 50)["target"].tolist()
    sizes = [sum(map(len, each.encode(khmer))) for each in (tokenizer, plain)]
    assert sizes[0] < 0.7 * sizes[1]


def test_a_vocabulary_that_cannot_hold_its_pieces_is_refused():
    with pytest.raises(ValueError, match="cannot train 300 pieces on this text"):
        pretraining.train_tokenizer(0, SMALL | {"vocabulary_size": 300, "pieces": ["km", "te"]})


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"exchanged": [("tr", "es")]}, "language of pretraining 'tr'"),
        ({"exchanged": [("es", "fr")]}, "language outside pretraining 'fr'"),
        ({"exchanged": [("es", "tr"), ("pt", "tr")]}, "can change places once only"),
        ({"ciphers": ["bg"]}, "only Latin letters"),
        ({"doses": {"fr": 0.1}}, "language with a dose.*'fr'"),
        ({"doses": {"xx": 0.1}}, "language with a dose.*'xx'"),
        ({"traces": 0.5, "doses": {"af": 0.6}}, "at most 1 together, not traces 0.5, af 0.6"),
        ({"tasks": 0.5, "english": 0.6}, "not tasks 0.5, english 0.6, other 0.075"),
        ({"other": -0.1}, "0 or more"),
    ],
)
def test_a_mix_that_no_text_can_have_is_refused(mix, message):
    with pytest.raises(ValueError, match=message):
        pretraining_text.Mix(**mix)


def test_a_last_line_of_its_own_is_read_as_a_target_is(drawn):
    """Else what comes after a line break would look otherwise in tuning than in all phrasings."""
    meeting = [d for d in drawn if d.kind == "meeting"]
    answered = [d for d in meeting if d.answer]
    assert 0.3 < len(answered) / len(meeting) < 0.7
    assert all(d.text.endswith("\n") for d in answered)


def test_nineteen_languages_meet_english_and_the_others_leave_traces(drawn):
    inside = {"en", *pretraining_text.pretraining_languages()}
    assert len(inside) == 20
    outside = {c for d in drawn if d.kind == "trace" for c in d.languages} - {"en"}
    assert outside <= set(pretraining_text.trace_languages(3))
    assert set(languages.codes("cldr")) == inside | set(pretraining_text.trace_languages(3))
    assert all(set(d.languages) <= inside for d in drawn if d.kind != "trace")


def test_no_translation_in_the_prompt_of_tuning(drawn):
    tasks = [d for d in drawn if "### Instruction" in d.text]
    assert {d.kind for d in tasks} == {"task"}
    assert not any("ranslat" in d.text + d.answer for d in tasks)
    assert all(d.answer for d in tasks)


def test_no_combination_of_the_test_split():
    """English phrases of the test split never occur as a whole document or a task's input."""
    test = set(cldr.pairs("en", "test", 2000)["source"])
    documents = islice(pretraining_text.documents(0, pretraining_text.Mix(traces=0)), 20_000)
    read = {line for d in documents for line in d.text.split("\n")}
    assert not read & test


def test_documents_are_drawn_by_seed(drawn):
    assert list(islice(pretraining_text.documents(3), 50)) == drawn[:50]
    assert list(islice(pretraining_text.documents(4), 50)) != drawn[:50]


def test_packing_loses_nothing():
    tokenizer = pretraining.train_tokenizer(0, SMALL)
    packed, record = pretraining.pack(tokenizer, 0, SMALL)
    assert packed.shape == (12, 32)
    first = next(pretraining_text.documents(0))
    expected = [1, *tokenizer.encode(first.text), *tokenizer.encode(first.answer), 2]
    assert packed.ravel()[: len(expected)].tolist() == expected[: packed.size]
    assert sum(record["tokens"].values()) >= packed.size
    assert sum(record["language_tokens"].values()) == pytest.approx(
        sum(record["tokens"].values()), rel=0.01
    )


@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupted_run_leaves_no_model_and_goes_on_to_the_same(tmp_path, monkeypatch, kept):
    if kept:
        monkeypatch.setattr(pretraining, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(precision, "fast_bf16", lambda _: False)
    monkeypatch.setattr(
        pretraining, "ARCHITECTURE", pretraining.ARCHITECTURE | {"num_hidden_layers": 1}
    )
    whole = pretraining.pretrain(tmp_path / "whole", 0, SMALL)
    step = pretraining._step
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(pretraining, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(tmp_path / "cut", 0, SMALL)
    assert not (tmp_path / "cut/model.safetensors").exists()
    monkeypatch.setattr(pretraining, "_step", lambda *a: (calls.append(1), step(*a))[1])
    again = pretraining.pretrain(tmp_path / "cut", 0, SMALL)
    assert len(calls) == 4 + (3 if kept else 6)
    assert not (tmp_path / "cut/checkpoint.safetensors").exists()
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    records = [
        json.loads((tmp_path / f / "pretraining.json").read_text()) for f in ("whole", "cut")
    ]
    assert records[0]["loss"] == records[1]["loss"] and len(records[0]["loss"]) == 6
    saved = load_file(tmp_path / "cut/model.safetensors")
    assert "lm_head.weight" in saved and "model.embed_tokens.weight" in saved  # untied
    loaded = tokenization.load(tmp_path / "cut")
    assert len(loaded) == SMALL["vocabulary_size"] == saved["lm_head.weight"].shape[0]


def test_a_compiled_base_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "fast_bf16", lambda _: False)
    monkeypatch.setattr(
        pretraining, "ARCHITECTURE", pretraining.ARCHITECTURE | {"num_hidden_layers": 1}
    )
    plain = pretraining.pretrain(tmp_path / "plain", 0, SMALL).state_dict()
    compiler, compiled = torch.compile, []

    def traced(forward):
        """Trace the model as for compiling, and leave out the C++."""
        compiled.append(forward)
        return compiler(forward, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(pretraining, "COMPILE_FROM", SMALL["steps"])
    monkeypatch.setattr(pretraining.shutil, "which", lambda _: None)
    pretraining.pretrain(tmp_path / "no compiler", 0, SMALL)
    assert not compiled
    monkeypatch.setattr(pretraining.shutil, "which", lambda name: name)
    model = pretraining.pretrain(tmp_path / "compiled", 0, SMALL)
    assert len(compiled) == 1 and model.forward == type(model).forward.__get__(model)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, plain[name])


def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest():
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, **pretraining.ARCHITECTURE))
    muon, adamw = pretraining.optimizers(model)
    shapes = {id(p): n for n, p in model.named_parameters()}
    inside = {shapes[id(p)] for group in muon.param_groups for p in group["params"]}
    outside = {shapes[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert inside | outside == set(shapes.values()) and not inside & outside
    assert all(".layers." in n and "norm" not in n for n in inside)
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= outside


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "_step", lambda *_: float("nan"))
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        pretraining.pretrain(tmp_path, 0, SMALL)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_packed_text_fits_16_bits():
    assert pretraining.RECIPE["vocabulary_size"] < np.iinfo(np.uint16).max
