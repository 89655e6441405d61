"""NLU by the harness: its prompts and scores, our tokenizer's ids, files as they are released."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mlq_utils import modeling, paper, published
from mlq_utils.corpora import loading as corpora
from mlq_utils.experiments import nlu
from mlq_utils.experiments import nlu_data as _nlu_data
from mlq_utils.experiments.store import Store
from mlq_utils.modeling.translation import beam_search

CONNECTORS = {"cause": "sest", "effect": "seetõttu"}  # the harness's for Estonian
FILES = {
    ("xcopa", "et"): "xcopa/data/et/test.et.jsonl",
    ("xstorycloze", "es"): "XStoryCloze/spring2016.val.es.tsv.split_20_80_eval.tsv",
    ("pawsx", "de"): "x-final/de/test_2k.tsv",
    ("xnli", "th"): "XNLI-1.0/xnli.test.tsv",
}
"""What each release calls the file of a language."""
QUOTED = '"Quoted", and not closed: "'


@pytest.fixture(scope="session")
def harness():
    """The module that needs the extra."""
    pytest.importorskip("lm_eval", reason='needs lm-evaluation-harness: the extra "nlu"')
    from mlq_utils.experiments import harness as _harness

    return _harness


@pytest.fixture(scope="module")
def phrases():
    frame = corpora.load("cldr", "et", "test", size=400)
    return [*frame["source"], *frame["target"]]


@pytest.fixture(scope="module")
def releases(tmp_path_factory, phrases):
    """A data folder with a file of four releases, in their formats, as long as the real ones."""
    folder = tmp_path_factory.mktemp("data")

    def text(n):
        return phrases[n % len(phrases)] + "."

    def write(name, lines):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf8")

    def table(name, header, rows):
        write(name, ["\t".join(row) for row in [header, *rows]])

    examples = [
        {
            "premise": text(3 * n), "choice1": text(3 * n + 1), "choice2": text(3 * n + 2),
            "question": ("cause", "effect")[n % 2], "label": n // 2 % 2, "idx": n, "changed": False,
        }
        for n in range(500)
    ]  # fmt: skip
    write(FILES["xcopa", "et"], [json.dumps(row, ensure_ascii=False) for row in examples])

    header = "InputStoryid InputSentence1 InputSentence2 InputSentence3 InputSentence4 "
    header += "RandomFifthSentenceQuiz1 RandomFifthSentenceQuiz2 AnswerRightEnding"
    rows = [[f"id-{n}", *(text(6 * n + k) for k in range(6)), str(n % 2 + 1)] for n in range(1511)]
    table(FILES["xstorycloze", "es"], header.split(), rows)

    rows = [[str(n), text(n), text(n + 1), str(n % 2)] for n in range(2000)]
    rows[0][1], rows[1][2] = QUOTED, ""
    table(FILES["pawsx", "de"], ["id", "sentence1", "sentence2", "label"], rows)

    header = "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse "
    header += "sentence2_parse sentence1 sentence2 promptID pairID genre label1 label2 label3 "
    header += "label4 label5 sentence1_tokenized sentence2_tokenized match"
    rows = []
    for n in range(2 * 5010):
        label, texts = ("neutral", "contradiction", "entailment")[n % 3], [text(n), text(n + 1)]
        numbers = [str(n), str(n), "facetoface"]
        code = ("en", "th")[n // 5010]
        rows.append([code, label, *4 * [""], *texts, *numbers, *5 * [label], *texts, "True"])
    table(FILES["xnli", "th"], header.split(), rows)
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def mini(harness):
    return harness.Harness(modeling.load("mini"), 4)


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(modeling, "load", refuse)


def loglikelihood(base, context, text):
    """The plain way: one text at a time, no cache, no padding."""
    before = [base.bos, *base.tokenizer.encode(context)] if context else [base.bos]
    ids = [base.bos, *base.tokenizer.encode(context + text)]
    with torch.no_grad():
        logits = base.model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return sum(logits[n - 1, ids[n]].item() for n in range(len(before), len(ids)))


def share(right):
    return 100 * sum(right) / len(right)


def test_tasks_and_languages_are_those_of_the_harness(harness):
    known = set(harness.manager().all_subtasks)
    for task in nlu.TASKS.values():
        names = {task.harness.format(language=code) for code in task.languages}
        start = task.harness.format(language="")
        assert names == {name for name in known if name.startswith(start)}


@pytest.mark.parametrize("text", ["a  b", "  a", "a ", "Oikaze. 9\u200b", "ක්‍රම", "</s> <s>", "\n"])
def test_the_ids_are_those_of_our_tokenizer(mini, text):
    words = modeling.load("mini").tokenizer
    assert mini.tok_encode(text) == [1, *words.encode(text)]
    assert mini.tok_encode(text, add_special_tokens=False) == words.encode(text)
    context, rest = mini._encode_pair("Here:", f" {text}")
    assert context + rest == [1, *words.encode(f"Here: {text}")]
    ids, mask = mini.tok_batch_encode([text, "a longer text, so that the other one is padded"])
    assert ids[0][mask[0] == 1].tolist() == [1, *words.encode(text)]


def test_a_tokenizer_of_transformers_would_give_other_ids(mini):
    theirs = transformers.LlamaTokenizer.from_pretrained(modeling.MINI)
    assert theirs.encode("a  b") != mini.tok_encode("a  b")


def test_a_tokenizer_that_opens_no_text_opens_none_here(harness, tokenizers_by_name):
    words = tokenizers_by_name["byte-level"]
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, eos_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    tested = harness.Harness(modeling.Model(model, words, "x", None, 0, 0), 2)
    assert tested.tok_encode("Romania") == words.encode("Romania")
    assert tested.tok_decode(0, skip_special_tokens=False) == "<|endoftext|>"
    assert tested.max_gen_toks == 32


def test_probabilities_of_a_bf16_model_are_summed_in_fp32(harness):
    base = modeling.load("mini", dtype=torch.bfloat16)
    text = (("", ""), [1], base.tokenizer.encode("Thursday, January 9, 2003, and Romania " * 4))
    ((value, _),) = harness.Harness(base, 1)._loglikelihood_tokens([text])
    assert value != torch.tensor(value).bfloat16().item()


def test_xcopa_is_the_choice_of_the_higher_probability(harness, releases, store):
    base, right = modeling.load("mini"), []
    for row in list(nlu.TASKS["xcopa"].read(releases / "xcopa/data/et/test.et.jsonl", "et"))[:24]:
        context = f"{row['premise'][:-1]} {CONNECTORS[row['question']]}"
        choices = [row["choice1"], row["choice2"]]
        found = [loglikelihood(base, context, f" {c[0].lower()}{c[1:]}") for c in choices]
        right.append(found.index(max(found)) == row["label"])
    (row,) = nlu.evaluate(
        tasks=["xcopa"], languages=["et"], limit=24, data=releases, store=store
    ).itertuples()
    assert row.score == pytest.approx(share(right)) and 0 < row.score < 100
    assert (row.samples, row.truncated, row.metric) == (24, 0, "acc,none")
    spread = row.score / 100 * (1 - row.score / 100) / 23
    assert row.stderr == pytest.approx(100 * math.sqrt(spread))


def test_xnli_is_the_text_of_the_highest_probability_on_the_test_set(harness, releases, store):
    base, right = modeling.load("mini"), []
    for row in list(nlu.TASKS["xnli"].read(releases / "XNLI-1.0/xnli.test.tsv", "en"))[:24]:
        texts = [
            f"{row['premise']}, right? {w}, {row['hypothesis']}" for w in ("Yes", "Also", "No")
        ]
        found = [loglikelihood(base, "", text) for text in texts]
        right.append(found.index(max(found)) == row["label"])
    found = nlu.evaluate(tasks=["xnli"], languages=["en"], limit=24, data=releases, store=store)
    assert found["score"].tolist() == [pytest.approx(share(right))]


def test_the_other_two_are_scored_from_their_files(harness, releases, store):
    found = [
        nlu.evaluate(tasks=[name], languages=[code], limit=8, data=releases, store=store)
        for name, code in (("xstorycloze", "es"), ("pawsx", "de"))
    ]
    assert [int(f["samples"][0]) for f in found] == [8, 8]
    pairs = list(nlu.TASKS["pawsx"].read(releases / "x-final/de/test_2k.tsv", "de"))
    assert pairs[0]["sentence1"] == QUOTED and pairs[1]["sentence2"] == ""


def test_mgsm_on_the_released_files(harness, data, store):
    if not (data / "mgsm").is_dir():
        pytest.skip("no MGSM in the data folder")
    for code in ("en", "es", "sw", "te", "th"):
        examples = nlu.TASKS["mgsm"].read(data / f"mgsm/mgsm_{code}.tsv", code)
        answers = [row["answer_number"] for row in examples]
        assert (len(answers), answers[:4], max(answers)) == (250, [18, 3, 70000, 540], 276000)
    found = nlu.evaluate(tasks=["mgsm"], languages=["es", "th"], limit=2, data=data, store=store)
    assert found["samples"].tolist() == [2, 2] and found["score"].between(0, 100).all()
    digest = _nlu_data.sha256(data / "mgsm/mgsm_es.tsv")
    assert found.attrs["data"]["mgsm es"] == {"file": "mgsm/mgsm_es.tsv", "sha256": digest}
    assert found.attrs["shots"] == 0 and found.attrs["limit"] == 2


def mgsm(folder, answers):
    (folder / "mgsm").mkdir(parents=True, exist_ok=True)
    lines = [f"¿Cuánto gana {n}?\t{answers(n)}\n" for n in range(250)]
    (folder / "mgsm/mgsm_es.tsv").write_text("".join(lines), encoding="utf8")
    return folder


def test_mgsm_is_scored_by_the_last_number(harness, tmp_path, store, monkeypatch):
    said = [" 1,250", "Gana 3 y luego 1250.", "1250 menos 3", "nada"]
    monkeypatch.setattr(harness.Harness, "generate_until", lambda self, requests, **_: said)
    folder = mgsm(tmp_path, lambda n: "1,250")
    found = nlu.evaluate(tasks=["mgsm"], languages=["es"], limit=4, data=folder, store=store)
    assert found["score"].tolist() == [50]


def test_generation_is_greedy_and_stops_where_the_harness_says(harness):
    from lm_eval.api.instance import Instance

    base = modeling.load("mini")
    prompts = ["The capital is Romania, and", "January, February, Mar"]
    kwargs = {"until": ["\n"], "do_sample": False, "max_gen_toks": 20}
    requests = [
        Instance("generate_until", {}, (prompt, kwargs), n) for n, prompt in enumerate(prompts)
    ]
    plain = beam_search(
        base.model, [[base.bos, *base.tokenizer.encode(p)] for p in prompts],
        beam_size=1, max_new_tokens=20, eos_id=base.eos,
    )  # fmt: skip
    texts = [
        base.tokenizer.decode([i for i in out.ids if i != base.eos]).split("\n")[0] for out in plain
    ]
    # Configurations of LLaMA are about with another EOS than its tokenizer has.
    base.model.generation_config.eos_token_id = plain[0].ids[0]
    assert harness.Harness(base, 4).generate_until(requests) == texts and all(texts)


def test_what_is_longer_than_the_context_is_cut_and_counted(harness, base):
    model = harness.Harness(modeling.load(base), 2)
    model._max_length = 8
    text = list(range(5, 25))
    requests = [(("", ""), [1], text), (("", ""), [9], text[-8:]), (("", ""), [1, 2], [3, 4])]
    values = [value for value, _ in model._loglikelihood_tokens(requests)]
    assert model.truncated == 1 and values[0] != values[1] and all(map(math.isfinite, values))
    with torch.no_grad():
        logits = model.model(torch.tensor([[1, *text[-8:-1]]])).logits[0].log_softmax(-1)
    assert values[0] == pytest.approx(logits[range(8), text[-8:]].sum().item(), rel=1e-4)
    ids, _ = model.tok_batch_encode(["Romania " * 9, "a"], left_truncate_len=6)
    assert ids.shape == (2, 6) and model.truncated == 2


def tuned(base, folder):
    """A model as Embed FT leaves it."""
    weights = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    trained = {"model.embed_tokens.weight": weights.flip(0).contiguous()}
    modeling.save(folder, trained, strategy="embed", base=str(base))
    return trained


def test_a_tuned_model_is_scored_as_it_was_saved(harness, base, releases, store, tmp_path):
    trained = tuned(base, tmp_path / "tuned")
    loaded = modeling.load(tmp_path / "tuned")
    head = loaded.model.lm_head.weight.clone()
    model = harness.Harness(loaded, 2).model
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.model.embed_tokens.weight, trained["model.embed_tokens.weight"])
    scores = [
        nlu.evaluate(name, ["xcopa"], ["et"], limit=2, data=releases, store=store)
        for name in (base, tmp_path / "tuned")
    ]
    assert len(list(store.keys())) == len(scores) == 2


def test_an_untied_head_is_not_tied_again(harness, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=3072, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((modeling.MINI / "tokenizer.model").read_bytes())
    with pytest.warns(UserWarning, match="tied"):
        loaded = modeling.load(tmp_path)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.zero_()
    assert harness.Harness(loaded, 2).model.lm_head.weight.abs().sum() > 0


def test_what_is_done_is_not_computed_again(harness, releases, store, monkeypatch):
    found = nlu.evaluate(tasks=["xcopa"], languages=["et"], limit=3, data=releases, store=store)
    monkeypatch.setattr(modeling, "load", None)
    again = nlu.evaluate(
        tasks=["xcopa"], languages=["et"], limit=3, batch_size=1, data=releases, store=store
    )
    assert again.equals(found) and again.attrs == found.attrs
    with pytest.raises(TypeError):  # another limit is another record, and needs the model
        nlu.evaluate(tasks=["xcopa"], languages=["et"], limit=4, data=releases, store=store)


def test_other_data_is_another_record(harness, tmp_path, store):
    for answers in ("1", "2"):
        folder = mgsm(tmp_path / answers, lambda n, answer=answers: answer)
        nlu.evaluate(tasks=["mgsm"], languages=["es"], limit=1, data=folder, store=store)
    assert len(list(store.keys())) == 2


def test_an_interrupted_evaluation_goes_on_where_it_was(harness, releases, store, monkeypatch):
    whole, done = harness.score, []

    def score(model, tasks, task, language, *rest):
        if done == ["en"]:
            raise KeyboardInterrupt
        done.append(language)
        return whole(model, tasks, task, language, *rest)

    monkeypatch.setattr(harness, "score", score)
    ask = dict(tasks=["xnli"], languages=["en", "th"], limit=2, data=releases, store=store)
    with pytest.raises(KeyboardInterrupt):
        nlu.evaluate(**ask)
    done.append("interrupted")
    assert nlu.evaluate(**ask)["language"].tolist() == ["en", "th"]
    assert done == ["en", "interrupted", "th"]


def test_out_of_memory_takes_smaller_batches(harness, releases, store, monkeypatch):
    whole, sizes = harness.score, []

    def score(model, *rest):
        sizes.append(model.batch_size)
        if model.batch_size > 2:
            raise torch.OutOfMemoryError("no memory")
        return whole(model, *rest)

    monkeypatch.setattr(harness, "score", score)
    ask = dict(tasks=["xcopa"], languages=["et"], limit=2, data=releases, store=store)
    found = nlu.evaluate(batch_size=8, **ask)
    assert sizes == [8, 4, 2] and found["samples"].tolist() == [2]
    monkeypatch.setattr(harness, "score", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        nlu.evaluate(batch_size=2, **(ask | {"limit": 3}))


def test_without_data_and_network_it_says_what_to_place_where(
    harness, tmp_path, store, no_model, monkeypatch
):
    monkeypatch.delenv("MLQ_DATA", raising=False)
    for name, task in nlu.TASKS.items():
        with pytest.raises(ConnectionError) as error:
            nlu.evaluate(tasks=[name], data=tmp_path, store=store)
        for part in (task.hub, task.origin, task.folder, "MLQ_DATA"):
            assert part in str(error.value)
    assert not Path(store.url).exists()


def hub(monkeypatch, *files):
    _nlu_data._hub_revision.cache_clear()
    about = SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=f) for f in files])
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: about)


@pytest.fixture
def forget_the_hub():
    yield
    _nlu_data._hub_revision.cache_clear()


def test_a_data_set_that_is_a_script_is_refused(
    harness, tmp_path, store, no_model, monkeypatch, forget_the_hub
):
    hub(monkeypatch, "README.md", "mgsm.py")
    with pytest.raises(ValueError, match=r"script \(mgsm.py\).*url-nlp.*MLQ_DATA"):
        nlu.evaluate(tasks=["mgsm"], data=tmp_path, store=store)


def test_the_harness_fetches_one_commit_of_what_is_not_here(
    harness, releases, tmp_path, store, monkeypatch, forget_the_hub
):
    import datasets

    hub(monkeypatch, "README.md", "en/test-00000-of-00001.parquet")
    rows = list(nlu.TASKS["xnli"].read(releases / "XNLI-1.0/xnli.test.tsv", "en"))
    asked, test = [], datasets.Dataset.from_list(rows)

    def load_dataset(path, name, **kwargs):
        asked.append((path, name, kwargs))
        return {"train": test, "validation": test.select([0]), "test": test}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    ask = dict(tasks=["xnli"], languages=["en"], limit=12, store=store)
    found = nlu.evaluate(data=tmp_path, **ask)
    assert asked == [("facebook/xnli", "en", {"revision": "c0ffee"})]
    assert found.attrs["data"] == {"xnli en": {"hub": "facebook/xnli", "revision": "c0ffee"}}
    assert found.equals(nlu.evaluate(data=releases, **ask))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"tasks": ["xcop"]}, "unknown task 'xcop'. Did you mean xcopa"),
        ({"tasks": ["xcopa"], "languages": ["es"]}, "unknown language of xcopa 'es'"),
        ({"tasks": ["mgsm", "xcopa"], "languages": ["es"]}, "xcopa has none of the languages es"),
        ({"limit": 0}, "limit is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_there_is_not_is_refused(ask, message, store, no_model):
    with pytest.raises(ValueError, match=message):
        nlu.evaluate(**ask, store=store)


def test_each_task_is_scored_in_the_languages_that_it_has():
    assert nlu._jobs(["mgsm", "xcopa"], ["th", "es"]) == [
        ("mgsm", "es"), ("mgsm", "th"), ("xcopa", "th"),
    ]  # fmt: skip
    assert len(nlu._jobs(None, None)) == 11 + 11 + 11 + 7 + 15


DAMAGES = {
    "cut between lines": (lambda raw: raw[: raw.rstrip(b"\n").rindex(b"\n") + 1], "examples"),
    "cut within the last line": (lambda raw: raw[:-9], ""),
    "cut within the first line": (lambda raw: raw[:10], ""),
    "empty": (lambda raw: b"", "has 0 examples"),
    "not UTF-8": (lambda raw: raw[:5000] + b"\xff" + raw[5000:], "line .*not UTF-8"),
    "NUL": (lambda raw: raw[:5000] + b"\0" + raw[5000:], "line .*NUL"),
    "no such label": (lambda raw: re.sub(rb'\t1\n|l": 1|\tentailment', b'\t"x"\n', raw), "line "),
    "a web page": (lambda raw: b"<html>\n<body>404</body>\n</html>\n", "line 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("job", FILES, ids=lambda job: job[0])
def test_a_damaged_file_is_refused_by_name(job, damage, releases, tmp_path):
    change, message = DAMAGES[damage]
    path = tmp_path / FILES[job]
    path.parent.mkdir(parents=True)
    raw = (releases / FILES[job]).read_bytes()
    path.write_bytes(change(raw))
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        _nlu_data.find(*job, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [("¿Cuánto?\tmucho", "line 7: no number: 'mucho'"), ("\t4", "line 7: an empty text"),
     ("¿Cuánto? 4", "line 7: 1 columns instead of 2")],
)  # fmt: skip
def test_a_damaged_line_of_mgsm_is_refused(line, message, tmp_path):
    path = mgsm(tmp_path, str) / "mgsm/mgsm_es.tsv"
    lines = path.read_text("utf8").split("\n")
    lines[6] = line
    path.write_text("\n".join(lines), "utf8")
    with pytest.raises(ValueError, match=message):
        _nlu_data.find("mgsm", "es", tmp_path)


def test_half_an_answer_is_not_taken_for_one(tmp_path):
    path = mgsm(tmp_path, lambda n: "276000") / "mgsm/mgsm_es.tsv"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{path}.*truncated"):
        _nlu_data.find("mgsm", "es", tmp_path)


def test_a_file_missing_from_a_release_is_no_reason_to_download(harness, releases, store, no_model):
    with pytest.raises(FileNotFoundError, match=r"test.th.jsonl is missing.*cambridgeltl"):
        nlu.evaluate(tasks=["xcopa"], languages=["et", "th"], data=releases, store=store)
    assert not Path(store.url).exists()


def test_averages_are_over_languages_and_then_over_tasks():
    """The printed row of LLaMA-7B is the harness's own, English left out of two tasks."""
    found = published.harness()
    assert found.groupby("task")["language"].agg(set).to_dict() == {
        name: set(nlu.TASKS[name].languages) for name in nlu.TASKS if name != "mgsm"
    }
    means = nlu.average(found).set_index("task")
    assert means["score"].round(1).to_dict() == {
        "xcopa": 53.9, "xstorycloze": 55.5, "pawsx": 54.4, "xnli": 38.0, "AVG": 50.5,
    }  # fmt: skip
    assert means["score"]["AVG"] == pytest.approx(means["score"][:-1].mean())
    assert means["all_languages"].to_dict() == dict.fromkeys(means.index, True) | {"AVG": False}
    without = found[(found["language"] != "en") | (found["task"] == "xstorycloze")]
    beside = nlu.compare(without).set_index("task")
    assert beside["difference"][:-1].abs().max() < 0.05
    assert not beside["all_languages"][["pawsx", "xnli"]].any()


def test_what_is_compared_is_printed():
    found = published.harness().query("task in ('xcopa', 'xnli')")
    beside = nlu.compare(found, "Bilingual", "embed").set_index("task")
    table = paper.table(16).query("training_data == 'Bilingual' and strategy == 'embed'")
    cells = table.set_index("task")["score"]
    assert beside["printed"].tolist() == [
        cells["XCOPA"], cells["XNLI"], (cells["XCOPA"] + cells["XNLI"]) / 2,
    ]  # fmt: skip
    assert beside["difference"]["xnli"] == pytest.approx(beside["score"]["xnli"] - 38.0)
    with pytest.raises(ValueError, match="unknown training data 'Alpaca'"):
        nlu.compare(found, "Alpaca")
    with pytest.raises(ValueError, match="unknown strategy on Bilingual 'untuned'"):
        nlu.compare(found, "Bilingual")


def test_the_command_prints_scores_and_averages(harness, base, releases, tmp_path, capsys):
    ask = ["--base", str(base), "--tasks", "xcopa", "--languages", "et", "--limit", "2"]
    nlu.main([*ask, "--data", str(releases), "--store", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "xcopa       et acc,none" in printed and "AVG" in printed and "53.9" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--tasks": "xcop"}, "unknown task"),
        ({"--limit": "-1"}, "limit is -1"),
        ({"--data": "nowhere"}, "data folder 'nowhere' does not exist"),
        ({"--beside": "Alpaca"}, "expected 2 arguments"),
        ({"--base": "nowhere"}, "no model 'nowhere'"),
    ],
)
def test_the_command_refuses_in_one_line(harness, changes, message, releases, tmp_path, capsys):
    ask = {"--tasks": "xcopa", "--languages": "et", "--data": str(releases)}
    ask |= {"--store": str(tmp_path / "store")} | changes
    with pytest.raises(SystemExit) as status:
        nlu.main([part for option in ask.items() for part in option])
    assert status.value.code == 2 and message in capsys.readouterr().err


def test_a_row_that_is_not_printed_is_said_before_anything_is_computed(no_model, capsys):
    with pytest.raises(SystemExit):
        nlu.main(["--beside", "Bilingual", "untuned"])
    assert "unknown strategy on Bilingual" in capsys.readouterr().err


def test_without_the_harness_it_says_how_to_install_it(monkeypatch, no_model, store):
    monkeypatch.setattr(nlu, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "mlq_utils\[nlu\]"'):
        nlu.evaluate(tasks=["xcopa"], store=store)


def test_the_package_imports_without_the_harness(monkeypatch):
    for name in ("lm_eval", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    for module in (nlu, _nlu_data):
        copy = importlib.util.module_from_spec(module.__spec__)
        module.__spec__.loader.exec_module(copy)
        assert list(copy.TASKS) == list(nlu.TASKS)
