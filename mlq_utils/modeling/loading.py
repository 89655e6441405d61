"""Loading models.

    base = load("mini")            # or a folder, or a name on the Hub

Whatever could lead to a wrong score instead of an error is refused before anything is trained:
damaged or missing tensors, NaN, or the tokenizer of another model.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from mlq_utils import tokenization
from mlq_utils.modeling.bases import find
from mlq_utils.modeling.memory import is_out_of_memory


@dataclass(frozen=True)
class Model:
    """A causal language model with its tokenizer.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer, which adds no special tokens.
        name: Name or path that it was loaded from.
        bos: Id of the token that opens a text, or None if the model has none.
        eos: Id of the token that ends a text.
        pad: Id of the padding. Never mask by comparing with it, since it can be a token of the
            vocabulary.
        extended_from: Size of the vocabulary before `extend`, or None if it is the base's own.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: tokenization.Tokenizer = field(repr=False)
    name: str
    bos: int | None
    eos: int
    pad: int
    extended_from: int | None = None


def load(
    name_or_path: str | Path = "mini",
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = torch.float32,
    spare_rows: int = 0,
) -> Model:
    """Load a model and its tokenizer to the CPU, in evaluation mode.

    Args:
        name_or_path: "mini" for the packaged base; a folder in Hugging Face's format, which may
            hold an adapter of PEFT; or a name on the Hub such as "huggyllama/llama-7b". Defaults to
            "mini".
        revision: Branch, tag or commit on the Hub.
        dtype: Type of all weights, or None for that in which they are stored, so that training
            starts from just these. Defaults to fp32.
        spare_rows: Largest number of embeddings beyond the tokenizer's vocabulary. Some models
            round the number up; for LLaMA any difference means the wrong tokenizer. Defaults to 0.

    Raises:
        FileNotFoundError: There is no such model, or a file is missing.
        ConnectionError: The Hub cannot be reached.
        ValueError: The weights are pickled, damaged, incomplete or not finite; the model needs
            remote code; or the vocabularies do not match.
    """
    folder = find(str(name_or_path), revision)
    if (folder / peft.utils.CONFIG_NAME).is_file():
        return _load_adapted(folder, dtype, spare_rows)
    config = configuration(str(folder))
    stored = _stored_type(folder)
    words = tokenization.load(folder)
    tied, config.tie_word_embeddings = config.tie_word_embeddings, False
    model, missing = _read(folder, config=config, dtype=dtype or stored)
    if tied:
        # Embed FT would otherwise train the head, too, without anyone noticing.
        warnings.warn(
            f"{name_or_path}: the head is tied to the input embeddings; here it is a copy of them, "
            "so that it stays as it is when the embeddings are tuned",
            stacklevel=2,
        )
        if "lm_head.weight" in missing:
            missing.remove("lm_head.weight")
            with torch.no_grad():
                model.get_output_embeddings().weight.copy_(model.get_input_embeddings().weight)
    if missing:  # transformers has filled them with noise
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(missing)[:3])}")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{folder}: {name} holds NaN or infinite weights")
    rows = model.get_input_embeddings().num_embeddings
    if not 0 <= rows - len(words) <= spare_rows:
        raise ValueError(
            f"the model has {rows:,} embeddings, its tokenizer {len(words):,} tokens: they do not "
            "belong together; for a model that rounds up, allow the difference with spare_rows"
        )
    return Model(model.eval(), words, str(name_or_path), *_special_tokens(model, words))


def configuration(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Return a model's configuration, without downloading or reading its weights.

    Args:
        name: What `load` takes.
        revision: Branch, tag or commit on the Hub.

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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of transformers, which would leave widgets in notebooks."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@quiet()
def _read(folder: Path, **options: Any) -> tuple[PreTrainedModel, set[str]]:
    """Return the model and the names of missing weights."""
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (ValueError, RuntimeError, SafetensorError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{folder} holds no model that can be loaded: {error}") from error
    return model, set(found["missing_keys"])


def _load_adapted(folder: Path, dtype: torch.dtype | None, spare_rows: int) -> Model:
    """Load the base of an adapter, and merge the adapter into it."""
    try:
        config = peft.PeftConfig.from_pretrained(folder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / peft.utils.CONFIG_NAME} is damaged: {error}") from error
    name, revision = config.base_model_name_or_path, config.revision
    base = load(name, revision=revision, dtype=dtype, spare_rows=spare_rows)
    try:
        # Not LoRA's own choice of fp32, so that all weights have one type when they are merged.
        model = peft.PeftModel.from_pretrained(base.model, folder, autocast_adapter_dtype=False)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{folder}: the adapter is damaged or of another base: {error}") from error
    model = model.merge_and_unload()
    return dataclasses.replace(base, model=model.eval(), name=str(folder))


def _stored_type(folder: Path) -> torch.dtype:
    """Return the narrowest type that holds all weights in a folder as they are.

    A folder without safetensors, or with damaged ones, is refused, and the file named.
    """
    kinds = set()
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
                names = tensors.keys()
                kinds |= {tensors.get_slice(name).get_dtype() for name in names}
        except SafetensorError as error:
            raise ValueError(f"{file} is truncated or no safetensors file: {error}") from error
    # Not what the configuration says, which can be another. Only fp32 holds several types.
    narrow = {"F16": torch.float16, "BF16": torch.bfloat16}
    return narrow.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


def _special_tokens(
    model: PreTrainedModel, words: tokenization.Tokenizer
) -> tuple[int | None, int, int]:
    """Return the ids of BOS, EOS and padding."""
    # The tokenizer decides before the configuration: some configurations of LLaMA have other ids
    # than its tokenizer, and those of Qwen, GPT-NeoX and MPT name a BOS that is put before no text.
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    bos, eos = words.opening, eos[0] if isinstance(eos, list) else eos
    if hasattr(words.backend, "eos_id"):
        bos, eos = (i if i >= 0 else None for i in (words.backend.bos_id(), words.backend.eos_id()))
    if eos is None:
        raise ValueError("the model has no token that ends a text (EOS)")
    return bos, eos, 0 if pad in (None, -1, eos) else pad
