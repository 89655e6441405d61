"""Models that are taken home: folders, model cards, and the Hub (a fake one)."""

import dataclasses
import json
import re

import httpx
import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForCausalLM, AutoTokenizer

from mlq_utils import cli, corpora, experiments, modeling
from mlq_utils.experiments import runner
from mlq_utils.experiments.store import Store
from mlq_utils.modeling.extension import Extension


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def spec(small):
    return dataclasses.replace(small, cap=8, beam_size=1)


@pytest.fixture(scope="module")
def exported(spec, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    experiments.run(spec, store, progress=False, export=folder)
    return folder


class Hub:
    """The calls of the Hub's client, which it records or refuses."""

    def __init__(self, calls, refusal=None):
        self.calls, self.refusal = calls, refusal

    def create_repo(self, **options):
        self.calls.append(options)
        if self.refusal:
            raise self.refusal

    def upload_folder(self, *, folder_path, **options):
        self.calls.append(options | {"files": sorted(path.name for path in folder_path.iterdir())})


def same(folder, model):
    """Whether transformers computes with a folder what the package does with a model."""
    ids = torch.tensor([[5, 6, 7, 200, 9]])
    opened = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(opened(ids).logits, model.model(ids).logits, rtol=0, atol=1e-5)
    words = AutoTokenizer.from_pretrained(folder)
    texts = corpora.load("cldr", "ro", "test", size=50)["target"].tolist()
    assert words(texts, add_special_tokens=False)["input_ids"] == model.tokenizer.encode(texts)
    assert words("a")["input_ids"][0] == model.bos == words.bos_token_id
    assert words.eos_token_id == model.eos
    return len(words) == opened.config.vocab_size


def test_a_run_is_exported_as_others_read_it(exported, store, spec):
    assert same(exported, runner._tune(spec, progress=False)[0])
    files = {path.name for path in exported.iterdir()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"README.md", "tokenizer.model"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt"))]
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert store.get(spec.untuned().identity())["status"] == "done"


def test_the_card_has_data_scores_and_what_was_lost(exported, store, spec):
    card = (exported / "README.md").read_text("utf8")
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["language"] == ["ro"] and "license" not in yaml.safe_load(head)
    record = store.get(spec.identity())
    before = store.get(spec.untuned().identity())
    for row, old in zip(record["scores"], before["scores"], strict=True):
        interval = f"{row['spbleu_low']:.1f} +{row['spbleu_high']:.1f}"
        shown = rf"{row['target']} +{old['spbleu']:.1f} +{row['spbleu']:.1f} +{interval} "
        assert (
            re.search(shown, body)
            and row["spbleu_signature"] in body
            and row["chrf_signature"] in body
        )
    assert (
        "beyond the intervals of the scores: " in body
        and spec.identity() in body
        and "24 sentence" in body
    )
    assert "Translate English to Romanian." in body and "licence of this model" in body


def test_a_run_is_exported_later(exported, store, spec, tmp_path):
    words = ["export", spec.identity(), str(tmp_path / "home"), "--store", store.url]
    assert cli.main(words) == 0
    first, second = (modeling.load(path).model for path in (exported, tmp_path / "home"))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    first, second = (path / "README.md" for path in (exported, tmp_path / "home"))
    assert first.read_text("utf8") == second.read_text("utf8")


def test_an_extended_vocabulary_is_exported(spec, store, tmp_path):
    extended = dataclasses.replace(spec, extension=Extension("bpe", 30), targets=("ro",))
    experiments.run(extended, store, progress=False, export=tmp_path / "home")
    model, _ = runner._tune(extended, progress=False)
    assert len(model.tokenizer) == 730 and same(tmp_path / "home", model)
    assert len(modeling.load(tmp_path / "home").tokenizer) == 730


def test_a_tokenizer_that_transformers_cannot_follow_is_told(base, tmp_path):
    """Its new pieces join characters that are no tokens."""
    model = modeling.load(base)
    text = corpora.load("cldr", "km", "train", size=300)["target"].tolist()
    pieces = modeling.learn("bpe", text, 60, model.tokenizer)
    bigger = modeling.extend(model, pieces, "subwords", True)
    with pytest.warns(UserWarning, match=r"splits some text otherwise .* tokenizer\.model"):
        modeling.export(bigger, tmp_path / "home")
    assert modeling.load(tmp_path / "home").tokenizer.encode(text) == bigger.tokenizer.encode(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ()}, "only a model that is tuned"),
        ({"shorten": "one token"}, "with a tokenizer that others can read"),
        ({}, "holds something: give a new"),
        ({"strategy": "full", "adapter": True}, "export the whole model of full"),
        ({"extension": Extension("bpe", 30), "adapter": True}, "no room for new pieces"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_work(
    spec, store, exported, monkeypatch, changes, message
):
    options = {"export": exported, "adapter": changes.pop("adapter", False)}
    monkeypatch.setattr(runner, "_compute", lambda *_: pytest.fail("computed"))
    with pytest.raises(ValueError, match=message):
        changed = dataclasses.replace(spec, **changes)
        experiments.run(changed, store, **options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none", "home"], "'none' is the identity of no run in"),
        (["{identity}", "{export}"], "holds something"),
        (["{identity}", "home", "--push", "nobody"], "owner/name, not 'nobody'"),
    ],
)
def test_bad_requests_are_one_line(
    exported, store, spec, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    known = {"identity": spec.identity(), "export": exported}
    words = [word.format(**known) for word in words]
    assert cli.main(["export", *words, "--store", store.url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "home").exists()


def test_a_model_is_pushed_to_a_private_repository(
    spec, exported, store, tmp_path, monkeypatch, capsys
):
    calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(calls))
    words = ["export", spec.identity(), str(tmp_path / "home"), "--push", "me/basque"]
    assert cli.main([*words, "--store", store.url]) == 0
    made, sent = calls
    assert made == {"repo_id": "me/basque", "private": True, "exist_ok": True}
    assert sent["repo_id"] == "me/basque" and "README.md" in sent["files"]
    assert "huggingface.co/me/basque" in capsys.readouterr().out


ANSWER = httpx.Response(403, request=httpx.Request("POST", "https://example.org"))


@pytest.mark.parametrize(
    "refusal", [HfHubHTTPError("403 Forbidden\nmore", response=ANSWER), OSError("offline")]
)
def test_a_hub_that_refuses_is_one_line_before_work(
    spec, exported, store, tmp_path, monkeypatch, capsys, refusal
):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], refusal))
    words = ["export", spec.identity(), str(tmp_path / "home"), "--push", "me/basque"]
    assert cli.main([*words, "--store", store.url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the Hub does not take me/basque: " in line and "more" not in line
    assert not (tmp_path / "home").exists()
