"""Tuned models as others read them: Hugging Face's folders and PEFT's adapters.

    export(result.model, folder)                      # for AutoModelForCausalLM, vLLM and others
    export_adapter(result.trained, folder, "embed")   # for PeftModel; `load` opens both

A folder holds safetensors, the configuration and a tokenizer that transformers opens.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import peft
import sentencepiece
import tokenizers
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from mlq_utils import corpora
from mlq_utils.modeling.bases import find
from mlq_utils.modeling.loading import Model, configuration, load, quiet
from mlq_utils.modeling.strategies import prepare, trainable

TOKENIZER_FILES = ("tokenizer*", "special_tokens*", "vocab*", "merges.txt", "chat_template*")
SAMPLED = ("en", "ru", "ar", "hi", "km", "zh")
"""Languages whose phrases show whether transformers reads a tokenizer as this package does."""
SPACES = ((r"\A +| +\z", ""), (" {2,}", " "))
"""How SentencePiece removes needless spaces."""


def export(model: Model, folder: Path, source: Path | None = None) -> None:
    """Write a model, in its present precision, and its tokenizer in Hugging Face's format.

    Args:
        model: The model.
        folder: The folder.
        source: Folder with the tokenizer's files if it is a base's own. Without it, or if it has no
            tokenizer_config.json, they are written anew.
    """
    with quiet():
        model.model.save_pretrained(folder)
    _write_tokenizer(model, folder, source)


def _write_tokenizer(model: Model, folder: Path, source: Path | None) -> None:
    backend = model.tokenizer.backend
    if isinstance(backend, sentencepiece.SentencePieceProcessor):
        (folder / "tokenizer.model").write_bytes(backend.serialized_model_proto())
        backend = _converted(backend, model.bos)
    elif source and (source / "tokenizer_config.json").is_file():
        for file in {file for pattern in TOKENIZER_FILES for file in source.glob(pattern)}:
            shutil.copy(file, folder)
        return
    special = {"bos_token": model.bos, "eos_token": model.eos}
    named = {name: backend.id_to_token(i) for name, i in special.items() if i is not None}
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)
    text = [t for c in SAMPLED for t in corpora.load("cldr", c, "test", size=20)["target"]]
    theirs = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    if theirs != model.tokenizer.encode(text):
        warnings.warn(
            f"{folder}: transformers splits some text otherwise than the model was tuned with. "
            "Translate with this package, or with tokenizer.model and SentencePiece",
            stacklevel=3,
        )


def _converted(
    words: sentencepiece.SentencePieceProcessor, opening: int | None
) -> tokenizers.Tokenizer:
    """Return a SentencePiece BPE tokenizer as transformers reads it, with an opening token.

    Whether pieces join characters that are no tokens themselves cannot be expressed.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(words.serialized_model_proto())
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise ValueError("only SentencePiece's BPE can be written for transformers")
    vocabulary = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    merges = generate_merges(vocabulary, {p.piece: p.score for p in proto.pieces})
    unknown = {"unk_token": words.id_to_piece(words.unk_id()), "fuse_unk": True}
    found = tokenizers.Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, **unknown))
    rules = proto.normalizer_spec
    steps = [normalizers.Replace(tokenizers.Regex(how), to) for how, to in SPACES]
    steps = steps if rules.remove_extra_whitespaces else []
    if rules.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(rules.precompiled_charsmap))
    ends = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
        ends.append(decoders.Strip(" ", 1, 0))
    found.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(ends)
    control = [i for i in range(len(words)) if words.is_control(i) or words.is_unknown(i)]
    found.add_special_tokens([words.id_to_piece(i) for i in control])
    if opening is not None:
        begin = words.id_to_piece(opening)
        found.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, opening)]
        )
    return found


def check_adapter(strategy: str, base: str, revision: str | None = None) -> None:
    """Refuse what no adapter can hold.

    Raises:
        ValueError: The strategy is another than LoRA or Embed FT, or Embed FT's base shares its
            embeddings with its head.
    """
    tied = strategy == "embed" and configuration(base, revision).tie_word_embeddings
    if strategy not in ("embed", "lora") or tied:
        raise ValueError(
            "only LoRA, and Embed FT of a base whose head is its own, make an adapter: export the "
            f"whole model of {strategy} on {base} instead"
        )


def export_adapter(
    trained: Mapping[str, torch.Tensor],
    folder: Path,
    strategy: str,
    base: str = "mini",
    revision: str | None = None,
    spare_rows: int = 0,
) -> None:
    """Write what LoRA or Embed FT has trained as an adapter of PEFT, with the base's tokenizer.

    That of Embed FT holds the rows of the embeddings that training has changed.

    Args:
        trained: `Result.trained`.
        folder: The folder.
        strategy: "lora" or "embed".
        base: Name or path of the base model. Defaults to "mini".
        revision: The base's revision on the Hub.
        spare_rows: See `load`.

    Raises:
        ValueError: As `check_adapter`.
    """
    check_adapter(strategy, base, revision)
    source = find(base, revision)
    found = load(base, revision=revision, spare_rows=spare_rows)
    tensors = {name: tensor.cpu() for name, tensor in trained.items()}
    if strategy == "lora":
        model = prepare(found.model, "lora")
    else:
        (new,) = tensors.values()
        changed = (new != found.model.get_input_embeddings().weight).any(dim=1)
        changed[0] |= not changed.any()  # PEFT cannot read an adapter without rows
        rows = changed.nonzero().flatten()
        config = peft.TrainableTokensConfig(token_indices=rows.tolist())
        model = peft.get_peft_model(found.model, config)
        tensors = dict.fromkeys(trainable(model), new[rows])
    for key, weight in trainable(model).items():
        weight.data.copy_(tensors[key])
    config = model.peft_config["default"]
    local = base == "mini" or Path(base).is_dir()
    config.base_model_name_or_path = str(source.resolve()) if local else base
    config.revision = revision
    model.save_pretrained(folder)
    _write_tokenizer(found, folder, source)
