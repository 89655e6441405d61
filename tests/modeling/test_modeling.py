"""Loading models, and what each strategy changes of them."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mlq_utils import modeling, tokenization
from mlq_utils.corpora import loading as corpora

VOCABULARY = 400
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LAYER = {f"{part}.weight" for part in PARTS} | {
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
}
EMBED = {"model.embed_tokens.weight"}


def save(folder, tokenizer, **changes):
    torch.manual_seed(0)
    config = LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
        }
        | changes
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.backend.serialized_model_proto())


@pytest.fixture(scope="module")
def words():
    pairs = corpora.load("cldr", "ro", "train", size=600)
    return tokenization.train([*pairs["source"], *pairs["target"]], VOCABULARY)


@pytest.fixture(scope="module")
def original(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("base")
    save(folder, words)
    return folder


@pytest.fixture
def folder(tmp_path, original):
    """A copy of the model that a test may damage."""
    return shutil.copytree(original, tmp_path / "copy")


def test_a_folder_is_loaded(original, words):
    base = modeling.load(original)
    assert type(base.model) is LlamaForCausalLM and not base.model.training
    assert base.model.dtype == torch.float32 and base.name == str(original)
    assert (base.bos, base.eos, base.pad) == (1, 2, 0)
    assert base.tokenizer.encode("Romania") == words.encode("Romania")
    assert modeling.load(original, dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_special_ids_are_the_tokenizer_s(folder):
    """As in the first conversions of LLaMA; and a padding token that is EOS masks nothing."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    base = modeling.load(folder)
    assert (base.bos, base.eos, base.pad) == (1, 2, 0)


def test_no_such_model(tmp_path, monkeypatch):
    for name in ("no such model", tmp_path / "nowhere" / "at all"):
        with pytest.raises(FileNotFoundError, match="no model"):
            modeling.load(name)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        modeling.load(tmp_path)
    with pytest.raises(ConnectionError, match="give the path of the folder"):
        modeling.load("nobody/nothing")  # the tests are offline
    monkeypatch.setattr("mlq_utils.modeling.bases.MINI", tmp_path / "base")
    with pytest.raises(FileNotFoundError, match="packages no base model"):
        modeling.load()


def test_the_packaged_base_is_the_default(original, monkeypatch):
    monkeypatch.setattr("mlq_utils.modeling.bases.MINI", original)
    assert modeling.load().name == "mini"


def test_a_pickled_checkpoint_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*can run code"):
        modeling.load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        modeling.load(folder)


def test_remote_code_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        modeling.load(folder)


@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, -1])
def test_truncated_weights_are_refused(folder, kept):
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[: int(kept * len(raw))] if kept == 0.5 else raw[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
        modeling.load(folder)


def change(folder, name, value):
    tensors = load_file(folder / "model.safetensors")
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "lack model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.index_fill(0, torch.tensor([7]), torch.nan), "up_proj.weight holds NaN"),
        (lambda t: t.index_fill(0, torch.tensor([7]), torch.inf), "up_proj.weight holds NaN"),
        (lambda t: t[:-1].clone(), "no model that can be loaded"),
    ],
)
def test_bad_tensors_are_refused(folder, value, message):
    change(folder, "model.layers.1.mlp.up_proj.weight", value)
    with pytest.raises(ValueError, match=message):
        modeling.load(folder)


def test_another_model_s_tokenizer_is_refused(folder, words):
    other = tokenization.train(corpora.load("cldr", "fr", "train", size=600)["target"], 380)
    (folder / "tokenizer.model").write_bytes(other.backend.serialized_model_proto())
    with pytest.raises(ValueError, match="400 embeddings, its tokenizer 380"):
        modeling.load(folder)
    assert len(modeling.load(folder, spare_rows=20).tokenizer) == 380
    save(folder, words, vocab_size=390)
    with pytest.raises(ValueError, match="390 embeddings"):
        modeling.load(folder, spare_rows=1000)


def test_a_tied_head_becomes_a_copy(tmp_path, words):
    save(tmp_path / "tied", words, tie_word_embeddings=True)
    tied = LlamaForCausalLM.from_pretrained(tmp_path / "tied")
    with pytest.raises(ValueError, match="tied"):
        modeling.prepare(tied, "embed")
    with pytest.warns(UserWarning, match="here it is a copy"):
        base = modeling.load(tmp_path / "tied")
    ids = torch.arange(20)[None]
    assert torch.equal(base.model(ids).logits, tied(ids).logits)
    step(modeling.prepare(base.model, "embed"))
    assert torch.equal(base.model.lm_head.weight, tied.lm_head.weight)
    assert not torch.equal(base.model.model.embed_tokens.weight, tied.lm_head.weight)
    base.model.save_pretrained(tmp_path / "untied")  # and it stays untied on disk
    again = LlamaForCausalLM.from_pretrained(tmp_path / "untied")
    assert torch.equal(again.lm_head.weight, tied.lm_head.weight)
    assert torch.equal(again.model.embed_tokens.weight, base.model.model.embed_tokens.weight)


def step(model, steps=2):
    """Train on random ids that hold every token; return the gradients of the last step."""
    ids = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0)).view(4, -1)
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def layer(*indices):
    return {f"model.layers.{i}.{name}" for i in indices for name in LAYER}


LORA = {
    f"base_model.model.model.layers.{i}.self_attn.{part}_proj.lora_{half}.default.weight"
    for i in range(3)
    for part in "qv"
    for half in "AB"
}
ALL = EMBED | layer(0, 1, 2) | {"model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize(
    "strategy, options, expected",
    [
        ("embed", {}, EMBED),
        ("full", {}, ALL),
        ("layers", {"layers": [1]}, layer(1)),
        ("layers", {"layers": range(0, 2)}, layer(0, 1)),
        ("layers", {"layers": [2, 0, 2]}, layer(0, 2)),
        ("lora", {}, LORA),
    ],
)
def test_exactly_the_named_parameters_change(original, strategy, options, expected):
    model = modeling.prepare(modeling.load(original).model, strategy, **options)
    assert set(modeling.trainable(model)) == expected
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = step(model)
    after = dict(model.named_parameters())
    assert {name for name, p in after.items() if not torch.equal(p, before[name])} == expected
    assert {name for name, gradient in gradients.items() if gradient.any()} == expected
    if strategy != "lora":
        assert set(before) == ALL


def test_preparing_again_forgets_the_strategy_before(original):
    model = modeling.load(original).model
    modeling.prepare(model, "full")
    assert set(modeling.trainable(modeling.prepare(model, "embed"))) == EMBED


def test_lora_is_the_paper_s_and_seeded(original):
    models = [
        modeling.prepare(modeling.load(original).model, "lora", seed=seed) for seed in (0, 0, 1)
    ]
    config = models[0].peft_config["default"]
    assert isinstance(models[0], peft.PeftModel)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 16, 0)
    first, same, other = ([p for n, p in m.named_parameters() if "lora_A" in n] for m in models)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    with pytest.raises(TypeError, match="peft already"):
        modeling.prepare(models[0], "embed")


def test_what_is_trained_is_fp32(original):
    base = modeling.load(original, dtype=torch.bfloat16)
    model = modeling.prepare(base.model, "embed")
    kinds = {p.dtype for n, p in model.named_parameters() if n not in EMBED}
    assert kinds == {torch.bfloat16}
    assert model.model.embed_tokens.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "strategy, options, message",
    [
        ("embde", {}, "Did you mean embed"),
        ("layers", {}, "give layers"),
        ("embed", {"layers": [0]}, "give layers for 'layers'"),
        ("layers", {"layers": []}, "0 to 2"),
        ("layers", {"layers": [0, 3]}, "0 to 2"),
        ("layers", {"layers": [-1]}, "0 to 2"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(original, strategy, options, message):
    model = modeling.load(original).model
    with pytest.raises(ValueError, match=message):
        modeling.prepare(model, strategy, **options)
    assert len(modeling.trainable(model)) == len(ALL)  # nothing was touched


def test_a_configuration_is_read_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert modeling.configuration(str(folder)).num_hidden_layers == 3
    assert modeling.configuration("mini").num_hidden_layers == 4
    (folder / "config.json").write_text("{", "utf8")
    with pytest.raises(ValueError, match=r"config\.json is no model's configuration"):
        modeling.configuration(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json"):
        modeling.configuration(str(folder))
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        modeling.configuration("nothing")


def test_what_is_in_bf16_is_shared_with_the_copy_that_translates(original):
    """Embed FT leaves the embeddings in fp32: they are copied, and nothing else."""
    base = modeling.load(original, dtype=torch.bfloat16)
    modeling.prepare(base.model, "embed")
    fast = modeling.for_translation(base).model
    for (name, one), other in zip(base.model.named_parameters(), fast.parameters(), strict=True):
        assert other.dtype == torch.bfloat16
        assert (one.data_ptr() == other.data_ptr()) == (name not in EMBED)
    assert base.model.get_input_embeddings().weight.dtype == torch.float32
