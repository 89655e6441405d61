"""Base models, and what each strategy of the paper trains of them.

    base = load("mini")                                 # the packaged base; or a folder, or the Hub
    tuned = prepare(base.model, "embed")                # input embeddings only
    save(folder, result.trained, strategy="embed")      # and load(folder)

Weights are read from safetensors only: a pickled checkpoint can run code when it is opened. What
could end in a wrong score rather than an error is refused here, before anything is trained: damaged
or missing tensors, NaN, a tokenizer that is not the model's.
"""

import contextlib
import copy
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from mlq_utils.data import atomic_write, one_of
from mlq_utils.modeling.bases import SAVED, digest, find, saved_as
from mlq_utils.modeling.distributed import fast_bf16
from mlq_utils.modeling.strategies import prepare
from mlq_utils.tokenization import tokenizer as tokenizers


@dataclass(frozen=True)
class Model:
    """A causal language model with its tokenizer.

    Attributes:
        model: The model; `full` FT changes it in place.
        tokenizer: Its tokenizer, which adds no special tokens.
        name: What it was loaded as.
        bos: The id that opens a text, None where the model has none.
        eos: The id that ends it.
        pad: The id that fills a batch up. Nothing may be masked by comparing with it: it can be a
            token of the vocabulary where the model has no padding token.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: tokenizers.Tokenizer = field(repr=False)
    name: str
    bos: int | None
    eos: int
    pad: int


def load(
    name_or_path: str | Path = "mini",
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    spare_rows: int = 0,
    device_map: str | None = None,
) -> Model:
    """Load a model and its tokenizer, on the CPU and in evaluation mode.

    A model whose head is tied to its input embeddings is untied: the head becomes a copy, with a
    warning. Otherwise Embed FT would train the head too, unseen.

    Args:
        name_or_path: "mini" for the packaged base; a folder in Hugging Face format, or one that
            `save` wrote; or a name of the Hub such as "huggyllama/llama-7b".
        revision: The Hub's branch, tag or commit.
        dtype: Of the weights; `prepare` makes what it trains fp32 in any case.
        spare_rows: How many rows the embeddings may have beyond the tokenizer's vocabulary. Some
            models round their number up; for LLaMA any difference means the wrong tokenizer.
        device_map: Where the weights go, as transformers and accelerate have it: "auto" spreads a
            model that one device cannot hold over all that there are. The CPU where None.

    Raises:
        FileNotFoundError: There is no such model, or it lacks a file.
        ConnectionError: The Hub cannot be reached.
        ValueError: The weights are pickled, damaged, incomplete or not finite; the model wants
            remote code; the vocabularies do not match; or a tuned model's base has changed.
    """
    folder = find(str(name_or_path), revision)
    if (folder / SAVED).is_file():
        return _load_tuned(folder, dtype, device_map)
    _check_files(folder)
    words = tokenizers.load(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tied, config.tie_word_embeddings = config.tie_word_embeddings, False
        with _no_bars():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ValueError, RuntimeError, SafetensorError, AttributeError) as error:
        raise ValueError(f"{folder} holds no model that can be loaded: {error}") from error
    missing = set(found["missing_keys"])
    if tied:
        warnings.warn(
            f"{name_or_path}: the head is tied to the input embeddings; here it is a copy of them, "
            "so that it stays as it is when the embeddings are tuned",
            stacklevel=2,
        )
        if "lm_head.weight" in missing:
            missing.remove("lm_head.weight")
            with torch.no_grad():
                model.get_output_embeddings().weight.copy_(model.get_input_embeddings().weight)
    if missing:  # transformers fills them with noise
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(missing)[:3])}")
    _check_weights(model, folder)
    _check_vocabulary(model, words, spare_rows)
    return Model(model.eval(), words, str(name_or_path), *_special_tokens(model, words))


def configuration(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Return a model's configuration, without its weights; of the Hub's that file alone is fetched.

    Args:
        name: What `load` takes.
        revision: The Hub's commit.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: As `load`.
    """
    folder = find(name, revision, ["config.json"])
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model: there is no config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}/config.json is no model's configuration: {error}") from error


def save(
    folder: Path,
    trained: Mapping[str, torch.Tensor],
    *,
    strategy: str,
    layers: Sequence[int] | None = None,
    base: str = "mini",
    revision: str | None = None,
    spare_rows: int = 0,
    **notes: Any,
) -> None:
    """Keep a tuned model: what was trained, and what it was trained on top of.

    For Embed FT that is the embedding matrix, not the whole model; for LoRA the low-rank matrices.

    Args:
        folder: Where to: `trained.safetensors`, and then `trained.json`, so that it holds a model
            or none.
        trained: `training.Result.trained`.
        strategy: What `prepare` was given, `layers` too.
        layers: See `strategy`.
        base: What `load` was given, `revision` and `spare_rows` too.
        revision: See `base`.
        spare_rows: See `base`.
        **notes: What else `saved_as` should tell, as JSON can hold it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "trained.safetensors") as aside:
        save_file({name: value.cpu().contiguous() for name, value in trained.items()}, aside)
    path = Path(base).expanduser()
    about = {
        "base": str(path.resolve()) if path.is_dir() else base,
        "revision": revision,
        "spare_rows": spare_rows,
        "digest": digest(base),
        "strategy": strategy,
        "layers": layers,
    }
    with atomic_write(folder / SAVED) as aside:
        aside.write_text(json.dumps(about | notes, indent=1), "utf8")


def _load_tuned(folder: Path, dtype: torch.dtype, device_map: str | None) -> Model:
    about = saved_as(folder)
    name = about["base"]
    foreign = f"{folder} was tuned from another {name} than the one that is there now"
    if digest(name) != about["digest"]:  # before any of it is loaded
        raise ValueError(foreign)
    try:
        tensors = load_file(folder / "trained.safetensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / 'trained.safetensors'} is damaged: {error}") from error
    given = {key: about[key] for key in ("revision", "spare_rows")}
    base = load(name, dtype=dtype, device_map=device_map, **given)
    model = prepare(base.model, about["strategy"], layers=about["layers"])
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if {n: p.shape for n, p in weights.items()} != {n: t.shape for n, t in tensors.items()}:
        raise ValueError(foreign)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    return dataclasses.replace(base, model=model.eval(), name=str(folder))


def choose_precision(
    model: torch.nn.Module, precision: str = "auto", device: torch.device | None = None
) -> str:
    """Return the precision to compute in: "bf16" or "fp32".

    Args:
        model: A model.
        precision: "auto" is bf16 where it is fast or where some weights are in bf16 anyway.
        device: What is computed on, the model's own where None.

    Raises:
        ValueError: There is no such precision, or fp32 is asked of weights that are not.
    """
    one_of("precision", precision, ("auto", "bf16", "fp32"))
    narrow = any(p.dtype != torch.float32 for p in model.parameters())
    if precision == "fp32" and narrow:
        raise ValueError("precision 'fp32' needs fp32 weights: load the model with that dtype")
    if precision == "auto":
        return "bf16" if narrow or fast_bf16(device or model.device) else "fp32"
    return precision


def for_translation(base: Model, precision: str = "auto") -> Model:
    """Return a model to translate with: itself, or in bf16 a copy of it with such weights.

    What is in bf16 already is shared with the copy, not copied.

    Args:
        base: A model.
        precision: As `choose_precision`. Beam search in bf16 takes two thirds of the time on
            processors that have it, and finds another translation in about one sentence of fifty.
    """
    weights = list(base.model.parameters())
    shared = {id(weight): weight for weight in weights if weight.dtype == torch.bfloat16}
    if choose_precision(base.model, precision) != "bf16" or len(shared) == len(weights):
        return base
    return dataclasses.replace(base, model=copy.deepcopy(base.model, shared).to(torch.bfloat16))


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' bars, which leave widgets in notebooks, from being shown."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_files(folder: Path) -> None:
    """Refuse a folder without safetensors, or with damaged ones, by name."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model: there is no config.json")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        pickled = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth")]
        if pickled:
            raise ValueError(
                f"{folder} has its weights in {pickled[0]} only: a pickled checkpoint can run code "
                "when it is opened. Convert it to safetensors"
            )
        raise FileNotFoundError(f"{folder} has no weights: there is no model.safetensors")
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                tensors.keys()
        except SafetensorError as error:
            raise ValueError(f"{file} is truncated or no safetensors file: {error}") from error


def _check_weights(model: PreTrainedModel, folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{folder}: {name} holds NaN or infinite weights")


def _check_vocabulary(model: PreTrainedModel, words: tokenizers.Tokenizer, spare_rows: int) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if not 0 <= rows - len(words) <= spare_rows:
        raise ValueError(
            f"the model has {rows:,} embeddings, its tokenizer {len(words):,} tokens: they do not "
            "belong together; for a model that rounds up, allow the difference with spare_rows"
        )


def _special_tokens(
    model: PreTrainedModel, words: tokenizers.Tokenizer
) -> tuple[int | None, int, int]:
    """Return the ids of BOS, EOS and padding; the tokenizer's before the configuration's.

    Configurations of LLaMA are about with other ids than its tokenizer has, and those of Qwen,
    GPT-NeoX and MPT name a BOS that their tokenizers put before no text.
    """
    config = model.config
    bos, eos, pad = config.bos_token_id, config.eos_token_id, config.pad_token_id
    eos = eos[0] if isinstance(eos, list) else eos
    if hasattr(words.backend, "eos_id"):
        bos, eos = (i if i >= 0 else None for i in (words.backend.bos_id(), words.backend.eos_id()))
    else:
        bos = words.opening
    if eos is None:
        raise ValueError("the model has no token that ends a text (EOS)")
    return bos, eos, 0 if pad in (None, -1, eos) else pad
