"""What is cast and what is not: weights for inference, masters for training, buffers never."""

import copy
import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from mlq_utils import experiments, modeling
from mlq_utils.experiments import runner
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import batches, training

STRATEGIES = ["embed", "full", "lora", "layers"]
FAR = 300
"""A position at which frequencies in bf16 are off by up to 0.4 rad."""
WIDE = {"hidden_size": 256, "num_attention_heads": 2, "intermediate_size": 64}
FAMILIES = {
    "llama": WIDE,
    "gpt_neox": WIDE | {"rotary_pct": 1.0},
    "gemma3_text": WIDE | {"head_dim": 128, "num_key_value_heads": 2},
}
"""Heads of width 128, as LLaMA-7B has."""


@pytest.fixture(scope="module")
def frame():
    return modeling.mixture({"ro": 20})


@pytest.fixture(scope="module", params=FAMILIES)
def rotary(request, base, tmp_path_factory):
    """A random model with heads as wide as LLaMA's, with the tokenizer of another base."""
    folder = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(
        request.param, **FAMILIES[request.param], vocab_size=700, num_hidden_layers=2,
        max_position_embeddings=512, initializer_range=0.1, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    shutil.copy(base / "tokenizer.model", folder)
    return folder


def angles(model):
    """Cosines and sines of the angles at position `FAR`, from each kind of rotary embedding."""
    module = next(m for n, m in model.named_modules() if n.endswith("rotary_emb"))
    kinds = [{"layer_type": k} for k in sorted(set(getattr(module, "layer_types", [])))] or [{}]
    return [module(torch.zeros(1), torch.tensor([[FAR]]), **kind) for kind in kinds]


def expected(model):
    """The angles by the definition, which llama and gpt_neox follow."""
    powers = torch.arange(0, 128, 2, dtype=torch.double) / 128
    found = FAR * model.config.rope_parameters["rope_theta"] ** -powers
    return found.repeat(2).cos(), found.repeat(2).sin()


def tuned(folder, frame, strategy="embed", **options):
    schedule = modeling.Schedule.mini(strategy, epochs=1, batch_size=8)
    layers = [1] if strategy == "layers" else None
    options = {"precision": "bf16", "progress": False, "layers": layers} | options
    given = options.pop("base", None) or modeling.load(folder)
    return modeling.fine_tune(given, frame, strategy, schedule, **options)


def test_angles_are_fp32_in_every_model_that_computes_in_bf16(rotary, frame, tmp_path):
    """Cast for translation, tuned or not; loaded in bf16; tuned in bf16, kept and loaded again."""
    whole = modeling.load(rotary)
    reference = angles(whole.model)
    if whole.model.config.model_type != "gemma3_text":
        for found, right in zip(reference[0], expected(whole.model), strict=True):
            torch.testing.assert_close(found[0, 0].double(), right, rtol=0, atol=1e-4)
    result = tuned(rotary, frame)
    modeling.export_adapter(result.trained, tmp_path / "kept", "embed", str(rotary))
    narrow = {
        "untuned": modeling.for_translation(whole, "bf16"),
        "tuned": modeling.for_translation(result.model, "bf16"),
        "loaded": modeling.load(rotary, dtype=torch.bfloat16),
        "tuned in bf16": tuned(
            rotary, frame, base=modeling.load(rotary, dtype=torch.bfloat16)
        ).model,
        "kept": modeling.load(tmp_path / "kept", dtype=torch.bfloat16),
        "kept, cast": modeling.for_translation(modeling.load(tmp_path / "kept"), "bf16"),
    }
    for how, base in narrow.items():
        assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}, how
        for found, right in zip(angles(base.model), reference, strict=True):
            assert all(torch.equal(*pair) for pair in zip(found, right, strict=True)), how
    untuned, loaded = narrow["untuned"].model, narrow["loaded"].model
    ids = torch.arange(3, 203)[None]
    assert torch.equal(untuned(ids).logits, loaded(ids).logits)


def test_logits_behind_position_300_are_those_of_fp32_angles(rotary):
    """But for the rounding of activations. With rounded frequencies they would be others."""
    base = modeling.load(rotary)
    for weight in base.model.parameters():
        weight.data = weight.data.bfloat16().float()
    torch.manual_seed(0)
    ids = torch.randint(3, 700, (2, 400))
    with torch.inference_mode():
        right = base.model(ids).logits[:, FAR:]
        narrow = modeling.for_translation(base, "bf16").model
        rounded = copy.deepcopy(base.model).bfloat16()
        errors = [(m(ids).logits[:, FAR:].float() - right).std() for m in (narrow, rounded)]
    assert errors[0] < errors[1] / 2
    assert errors[0] < 0.04 * right.std()


@pytest.fixture
def in_bf16(monkeypatch):
    """A placement as on a GPU."""
    monkeypatch.setattr(
        "mlq_utils.modeling.placement", lambda: (torch.device("cpu"), torch.bfloat16)
    )


def stored(folder, base, *kinds):
    """A copy of a base whose weights are stored in these types by turns."""
    shutil.copytree(base, folder)
    tensors = load_file(base / "model.safetensors")
    tensors = {n: t.to(kinds[i % len(kinds)]) for i, (n, t) in enumerate(sorted(tensors.items()))}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, tensors


F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize("kinds", [(F32,), (BF16,), (F16,), (BF16, F32)])
def test_masters_are_the_stored_weights(small, base, in_bf16, tmp_path, monkeypatch, kinds):
    """Also if the configuration names another type than that of the file."""
    folder, tensors = stored(tmp_path / "stored", base, *kinds)
    found, real = {}, training.prepare

    class Prepared(Exception):
        pass

    def prepare(*arguments, **options):
        model = real(*arguments, **options)
        found.update(model.named_parameters())
        raise Prepared

    monkeypatch.setattr(training, "prepare", prepare)
    for strategy in STRATEGIES:
        layers = (1,) if strategy == "layers" else None
        spec = dataclasses.replace(small, base=str(folder), strategy=strategy, layers=layers)
        found.clear()
        with pytest.raises(Prepared):
            runner._tune(spec)
        trained = {n for n, w in found.items() if w.requires_grad}
        assert trained and {found[n].dtype for n in trained} == {F32}
        names = {n.removeprefix("base_model.model.").replace("base_layer.", ""): n for n in found}
        assert set(tensors) <= set(names)
        for name, tensor in tensors.items():
            assert torch.equal(found[names[name]].float(), tensor.float()), (strategy, name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_in_bf16_from_fp32_weights(small, in_bf16, tmp_path, strategy):
    """It is kept and loaded for translation again: all weights in bf16, and the same scores."""
    layers = (1,) if strategy == "layers" else None
    spec = dataclasses.replace(small, strategy=strategy, layers=layers, cap=12)
    record = experiments.run(spec, Store(tmp_path / "a"), progress=False, export=tmp_path / "tuned")
    assert record["training"]["precision"] == "bf16"
    assert record["scores"][0]["precision"] == "bfloat16"
    again = modeling.load(tmp_path / "tuned", dtype=BF16).model
    assert {p.dtype for p in again.parameters()} == {BF16}
    untuned = dataclasses.replace(spec, languages=(), base=str(tmp_path / "tuned"))
    found = experiments.run(untuned, Store(tmp_path / "b"), progress=False)
    assert [s["spbleu"] for s in found["scores"]] == [s["spbleu"] for s in record["scores"]]


@torch.no_grad()
def loss_of(base, frame):
    """The loss of the model that translates, on what the first step of `tuned` trains."""
    data = batches.examples(frame, base)
    first = batches.batches(len(data.ids), 8, 0)[0]
    model = modeling.for_translation(base, "bf16").model
    rows = batches.collate(data, [[i] for i in first], base.pad)
    return batches.label_loss(model, *rows).item()


@pytest.mark.parametrize("kind", [F32, BF16])
def test_the_first_loss_is_that_of_the_model_that_translates(base, frame, kind):
    """Whatever is trained, and however it was loaded: the residual stream is bf16.

    What differs is attention, which has two implementations on a CPU.
    """
    right = loss_of(modeling.load(base), frame)
    for strategy in STRATEGIES:
        result = tuned(base, frame, strategy, base=modeling.load(base, dtype=kind))
        assert result.losses[0] == pytest.approx(right, rel=1e-3), strategy
        assert {w.dtype for w in result.trained.values()} == {F32}
        kinds = {w.dtype for w in result.model.model.parameters()}
        assert kinds == {F32 if kind == F32 or strategy == "full" else BF16}


def test_training_in_bf16_leaves_nothing_behind(base, frame):
    """Neither copies nor hooks, and what is frozen is not rounded."""
    before = modeling.load(base).model
    after = tuned(base, frame).model.model
    frozen = dict(before.named_parameters())
    del frozen["model.embed_tokens.weight"]
    assert all(torch.equal(w, after.get_parameter(n)) for n, w in frozen.items())
    assert not after.get_input_embeddings()._forward_hooks
    with pytest.raises(FloatingPointError):
        broken = modeling.load(base)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                training,
                "label_loss",
                lambda model, *_: float("nan") * next(model.parameters()).sum(),
            )
            tuned(base, frame, base=broken)
    assert {w.dtype for w in broken.model.parameters()} == {F32}
    assert not broken.model.get_input_embeddings()._forward_hooks
