"""Beam search against `model.generate`, and what a translation reports."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from mlq_utils.corpora import loading as corpora
from mlq_utils.modeling import beam, precision, translation
from mlq_utils.modeling.translation import Output, beam_search, scaled_cap, translate
from mlq_utils.tokenization import tokenizer

VOCABULARY, CONTEXT, EOS = 97, 128, 2


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def llama(seed=0, kv_heads=4, vocabulary=VOCABULARY, **options):
    """A random model; its weights are large, so that its outputs vary and EOS comes often."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=EOS,
        **options,
    )
    return LlamaForCausalLM(config).eval()


def prompts_of(seed, count=11, longest=20):
    torch.manual_seed(seed)
    lengths = torch.randint(1, longest, (count,)).tolist()
    opening = [7, 8, 9, 10] if seed % 2 else []  # as instructions open alike
    return [opening + torch.randint(3, VOCABULARY, (n,)).tolist() for n in lengths]


def generate(model, prompts, beams, cap, batch_size=8):
    """What transformers generates, EOS included, with left padding."""
    options = {"early_stopping": False, "length_penalty": 1.0} if beams > 1 else {}
    found = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(map(len, batch))
        output = model.generate(
            input_ids=torch.tensor([[0] * (width - len(p)) + p for p in batch]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch]),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=cap,
            eos_token_id=EOS,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        scores = output.sequences_scores.tolist() if beams > 1 else [None] * len(batch)
        for ids, score in zip(output.sequences[:, width:].tolist(), scores, strict=True):
            found.append((ids[: ids.index(EOS) + 1] if EOS in ids else ids, score))
    return found


def whole(output):
    return output.ids + [EOS] * output.finished


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_what_transformers_finds(seed, beams):
    model, prompts = llama(seed, kv_heads=[4, 2, 1][seed % 3]), prompts_of(seed)
    expected = generate(model, prompts, beams, 20)
    for batch_size in (1, 3, 8):
        found = beam_search(
            model,
            prompts,
            beam_size=beams,
            max_new_tokens=20,
            eos_id=EOS,
            batch_size=batch_size,
        )
        assert [whole(output) for output in found] == [ids for ids, _ in expected]
        if beams > 1:
            assert [o.score for o in found] == pytest.approx([s for _, s in expected], abs=1e-5)


def test_the_models_above_both_end_sentences_and_hit_the_cap():
    found = [
        output
        for seed in range(4)
        for output in beam_search(
            llama(seed, kv_heads=[4, 2, 1][seed % 3]),
            prompts_of(seed),
            max_new_tokens=20,
            eos_id=EOS,
        )
    ]
    assert sum(output.finished for output in found) >= 5
    assert sum(not output.finished for output in found) >= 5
    assert len({len(output.ids) for output in found if output.finished}) >= 3


def eager_to_end(seed):
    """A model that is torn: EOS is either far more probable than all else, or far less."""
    model = llama(seed)
    with torch.no_grad():
        model.lm_head.weight[EOS] *= 3
    return model


@pytest.mark.parametrize("seed", range(10, 14))
def test_it_finds_what_transformers_finds_where_sentences_end_early(seed):
    model, prompts = eager_to_end(seed), prompts_of(seed, count=20)
    found = beam_search(model, prompts, max_new_tokens=30, eos_id=EOS, batch_size=7)
    assert [whole(o) for o in found] == [ids for ids, _ in generate(model, prompts, 4, 30)]
    assert any(output.finished for output in found)


def test_in_double_precision_it_agrees_where_rounding_would_decide():
    model, prompts = llama(20, vocabulary=3000).double(), prompts_of(20, count=6)
    found = beam_search(model, prompts, max_new_tokens=25, eos_id=EOS)
    assert [whole(o) for o in found] == [ids for ids, _ in generate(model, prompts, 4, 25)]


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=5
    ),
    st.integers(1, 12),
    st.integers(1, 6),
)
def test_batching_changes_nothing(prompts, cap, batch_size):
    model = eager_to_end(10)
    alone = [beam_search(model, [p], max_new_tokens=cap, eos_id=EOS)[0] for p in prompts]
    together = beam_search(model, prompts, max_new_tokens=cap, eos_id=EOS, batch_size=batch_size)
    assert [o.ids for o in together] == [o.ids for o in alone]
    assert [o.finished for o in together] == [o.finished for o in alone]


def test_each_prompt_may_have_a_cap_of_its_own():
    model, prompts = llama(), prompts_of(0, count=6)
    caps = [1, 9, 2, 20, 5, 3]
    found = beam_search(model, prompts, max_new_tokens=caps, eos_id=EOS)
    expected = [generate(model, [p], 4, c)[0][0] for p, c in zip(prompts, caps, strict=True)]
    assert [whole(output) for output in found] == expected


def test_other_models_and_attentions_are_searched_too():
    prompts = prompts_of(1)
    eager = llama(1, attn_implementation="eager")
    torch.manual_seed(1)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    for model in (eager, GPTNeoXForCausalLM(config).eval()):
        found = beam_search(model, prompts, max_new_tokens=16, eos_id=EOS)
        assert [whole(o) for o in found] == [ids for ids, _ in generate(model, prompts, 4, 16)]


def test_it_leaves_the_model_as_it_was():
    model = llama().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    output = beam_search(model, [[5, 6]], max_new_tokens=4, eos_id=EOS)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(output[0], Output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "list of prompts is empty"),
        ({"prompts": [[5], []]}, "prompt 1 is empty"),
        ({"prompts": [[5] * 125]}, "prompt 0 has 125 tokens.*8 new ones.*128"),
        ({"max_new_tokens": [3, 4]}, "2 caps for 1 prompts"),
        ({"max_new_tokens": 0}, "1 or more, not 0"),
        ({"beam_size": 0}, "beam_size must be 1 or more"),
        ({"beam_size": 49}, "vocabulary of 98"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    arguments = {"prompts": [[5]], "max_new_tokens": 8, "eos_id": EOS} | arguments
    with pytest.raises(ValueError, match=message):
        beam_search(llama(), arguments.pop("prompts"), **arguments)


def test_models_that_it_cannot_search_are_refused():
    windowed, flash, damaged = llama(), llama(), llama()
    windowed.config.sliding_window = 8
    flash.config._attn_implementation = "flash_attention_2"
    with torch.no_grad():
        damaged.model.norm.weight[0] = float("nan")
    for model, message in (
        (windowed, "attends to the last 8 tokens, of 9"),
        (flash, "neither sdpa nor eager"),
        (damaged, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            beam_search(model, [[5]], max_new_tokens=8, eos_id=EOS)


@pytest.fixture(scope="module")
def pieces():
    return tokenizer.train(corpora.load("cldr", "ro", "train", size=500)["target"], 400)


@pytest.fixture(scope="module")
def talker(pieces):
    return llama(3, vocabulary=len(pieces))


def test_translations_are_decoded_in_order_with_their_lengths(pieces, talker):
    prompts = ["acum 7 ani", "România", "joi, 9 ianuarie 2003, și Kiribati"]
    frame = translate(talker, pieces, prompts, cap=10, bos_id=1, eos_id=EOS)
    ids = [[1, *pieces.encode(p)] for p in prompts]
    expected = beam_search(talker, ids, max_new_tokens=10, eos_id=EOS)
    assert frame["hypothesis"].tolist() == [pieces.decode(o.ids).strip() for o in expected]
    assert frame["tokens"].tolist() == [len(whole(o)) for o in expected]
    assert frame["cap_hit"].tolist() == [not o.finished for o in expected]
    assert frame.attrs["cap_hit_rate"] == frame["cap_hit"].mean()
    assert frame.attrs["skipped"] == []
    assert frame.attrs["cap"] == 10
    assert frame.attrs["engine"] == translation.ENGINE
    assert frame.dtypes.astype(str).tolist()[1:] == ["int64", "bool"]


def test_a_prompt_longer_than_the_context_is_skipped_and_counted(pieces, talker):
    prompts = ["România", "acum 7 ani " * 60, "Kiribati"]
    frame = translate(talker, pieces, prompts, cap=10, bos_id=1, eos_id=EOS)
    assert frame.attrs["skipped"] == [1]
    assert frame.loc[1].tolist() == ["", 0, False]
    without = translate(talker, pieces, prompts[::2], cap=10, bos_id=1, eos_id=EOS)
    assert frame["hypothesis"][[0, 2]].tolist() == without["hypothesis"].tolist()
    assert frame.attrs["cap_hit_rate"] == without.attrs["cap_hit_rate"]
    none = translate(talker, pieces, prompts[1:2], cap=10, bos_id=1, eos_id=EOS)
    assert none.attrs["skipped"] == [0]
    assert none.attrs["cap_hit_rate"] == 0


def test_the_context_ends_a_sentence_before_the_cap(pieces, talker):
    length = CONTEXT - 4
    prompt = next(p for n in range(CONTEXT) if len(pieces.encode(p := "7" * n)) == length - 1)
    frame = translate(talker, pieces, [prompt], cap=50, bos_id=1, eos_id=EOS)
    ids = [1, *pieces.encode(prompt)]
    (expected,) = beam_search(talker, [ids], max_new_tokens=4, eos_id=EOS)
    assert frame["hypothesis"][0] == pieces.decode(expected.ids).strip()
    assert frame["cap_hit"][0] == (not expected.finished)


def test_an_empty_list_of_prompts_is_refused(pieces, talker):
    with pytest.raises(ValueError, match="list of prompts is empty"):
        translate(talker, pieces, [], bos_id=1, eos_id=EOS)


def test_the_cap_follows_the_language(pieces):
    short, long = ["Fiji"], ["joi, 9 ianuarie 2003, și acum 7 ani", "Fiji"]
    longest = len(pieces.encode(long[0]))
    assert scaled_cap(pieces, long, minimum=1) == -(-3 * longest // 2) + 1
    assert scaled_cap(pieces, long, factor=2, minimum=1) == 2 * longest + 1
    assert scaled_cap(pieces, short) == 32
    km = corpora.load("cldr", "km", "train", size=50)["target"]
    ro = corpora.load("cldr", "ro", "train", size=50)["target"]
    assert scaled_cap(pieces, km.tolist()) > 3 * scaled_cap(pieces, ro.tolist())
    with pytest.raises(ValueError, match="list of references is empty"):
        scaled_cap(pieces, [])


def test_out_of_memory_takes_fewer_sentences_at_once(monkeypatch):
    """A device that holds three: the same translations, and it does not try more again."""
    model, prompts = llama(), prompts_of(3)
    options = {"beam_size": 2, "max_new_tokens": 6, "eos_id": EOS}
    expected, real, sizes = beam_search(model, prompts, **options), translation.Batch, []
    options["batch_size"] = 8

    def small(model, prompts, *rest):
        sizes.append(len(prompts))
        if len(prompts) > 3:
            raise torch.OutOfMemoryError("no room")
        return real(model, prompts, *rest)

    monkeypatch.setattr(translation, "Batch", small)
    with pytest.warns(UserWarning, match="with 8 sentences at once: 4 from here on"):
        found = beam_search(model, prompts, **options)
    assert [output.ids for output in found] == [output.ids for output in expected]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    sizes.clear()  # the next target starts with what fitted
    assert beam_search(model, prompts, **options | {"batch_size": None}) == found
    assert sizes == [2, 2, 2, 2, 2, 1]
    monkeypatch.setattr(translation, "Batch", lambda *_: (_ for _ in ()).throw(
        torch.OutOfMemoryError("no room")))  # fmt: skip
    message = "translating one sentence at a time: give fewer beams"
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError, match=message):
        beam_search(model, prompts, **options)


@pytest.mark.parametrize(
    ("free", "engine", "expected"),
    [(1e12, "own", 256), (8e6, "own", 55), (8e6, "generate", 19), (1e3, "own", 1)],
)
def test_on_a_gpu_the_first_batch_follows_from_its_free_memory(free, engine, expected, monkeypatch):
    model = llama()
    monkeypatch.setattr(LlamaForCausalLM, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 2e3, 2e12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5e3)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3e3)
    # Keys and values in fp32 of two layers with a width of 32.
    assert 0.8 * 8e6 // (2 * 2 * 32 * 4 * (163 + 64)) == 55
    assert translation._fitting(model, 163, 4, engine) == expected


@pytest.mark.parametrize(
    ("device", "dtype", "attention"),
    [
        ("cuda", torch.bfloat16, "sdpa"),
        ("cpu", torch.bfloat16, "eager"),
        ("cpu", torch.float32, "sdpa"),
    ],
)
def test_attention_suits_the_device(device, dtype, attention, monkeypatch):
    """The kernels of cuDNN, which plan anew for each shape, are not among them."""
    model = llama().to(dtype)
    monkeypatch.setattr(LlamaForCausalLM, "device", torch.device(device))
    usual = torch.backends.cuda.cudnn_sdp_enabled()
    with precision.attention(model, dtype):
        assert model.config._attn_implementation == attention
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert model.config._attn_implementation == "sdpa"
    assert torch.backends.cuda.cudnn_sdp_enabled() == usual


def test_the_cache_keeps_what_a_beam_sees_and_its_shapes_repeat(monkeypatch):
    """Four beams of 60 tokens would take 240 places. Of 6 rows none ends before the cap."""
    model, shapes, forward = llama(3), [], LlamaForCausalLM.forward
    with torch.no_grad():
        model.lm_head.weight[EOS] = 0

    def watched(self, *ids, position_ids=None, **options):
        found = forward(self, *ids, position_ids=position_ids, **options)
        shapes.append(tuple(options["past_key_values"].layers[-1].keys.shape))
        if len(shapes) > 1:  # after the prompts
            assert options["attention_mask"].shape[-1] == shapes[-1][2]
        return found

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    prompts = [[5 + i] * 10 for i in range(6)]
    found = beam_search(model, prompts, max_new_tokens=60, eos_id=EOS)
    steps = shapes[1:]
    assert len(steps) == 59 and not any(output.finished for output in found)
    assert all(length % beam.WIDTH == 0 for _, _, length, _ in steps)
    assert max(length for _, _, length, _ in steps) < 10 + 4 * 60 - 64
    assert len(set(steps)) <= 10
