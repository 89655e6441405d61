"""One interface to SentencePiece, Hugging Face and tiktoken tokenizers, and loading them."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
import yaml
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from mlq_utils.data import HUB_NAME, PACKAGE_DATA, data_folder, from_hub, sha256

_HUB_FILES = ["tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")
_Table = tuple[tuple[bytes | None, ...], np.ndarray]


@dataclass(frozen=True)
class Tokenizer:
    """One interface to SentencePiece, Hugging Face and tiktoken tokenizers.

    Attributes:
        name: The name or path that the tokenizer was loaded from.
        backend: The SentencePiece, Hugging Face or tiktoken tokenizer.
        token_bytes: The bytes of text that each id stands for, or None for special tokens. A
            space is always a plain space, whatever sign the vocabulary uses for it.
        is_byte: Whether each id is a byte token. This is a single fallback byte or, in byte-level
            BPE, a piece that does not consist of whole characters.
    """

    name: str
    backend: Any = field(repr=False)
    token_bytes: tuple[bytes | None, ...] = field(repr=False)
    is_byte: np.ndarray = field(repr=False)
    _encode_batch: Callable[[list[str]], list[list[int]]] = field(repr=False)
    _decode: Callable[[list[int]], str] = field(repr=False)

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.token_bytes)

    def encode(self, text: str | Sequence[str]) -> list[int] | list[list[int]]:
        """Return the ids of a text, or one list of ids per text, without special tokens."""
        if isinstance(text, str):
            return self._encode_batch([text])[0]
        return self._encode_batch(list(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids. Bytes that form no character become U+FFFD."""
        return self._decode([int(i) for i in ids])

    @property
    def opening(self) -> int | None:
        """The id of the special token that the tokenizer puts before a text, or None.

        SentencePiece adds none itself. Whether its `bos_id` is used depends on the model.
        """
        if not isinstance(self.backend, tokenizers.Tokenizer):
            return None
        plain = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a").ids
        return whole[0] if whole[: len(plain)] != plain else None

    @cached_property
    def opens(self) -> np.ndarray:
        """Whether a character begins in each token without ending in it."""
        return np.array([t is not None and missing_bytes(t) > 0 for t in self.token_bytes])


def missing_bytes(text: bytes) -> int:
    """Return how many continuation bytes the last character of `text` lacks, from 0 to 3."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 != 0x80:  # not a continuation byte, so the last character begins here
            size = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC2 else 1
            return max(0, size - back) if byte <= 0xF4 else 0
    return 0


def load(name_or_path: str | Path, *, revision: str | None = None) -> Tokenizer:
    """Load a tokenizer from a file, a folder, the data folder or the Hugging Face Hub.

    If a folder has a `tokenizer.model`, SentencePiece reads it, because conversions of it differ,
    for example in how they treat spaces, or tiktoken if it is one of LLaMA-3 or LLaMA-4. Otherwise
    `tokenizer.json` is read, or `AutoTokenizer` converts an older format. The code of a model is
    never run.

    Args:
        name_or_path: A `.model` or `.json` file, a folder, a name under `$MLQ_DATA/tokenizers`
            such as `llama`, or a name on the Hub such as `huggyllama/llama-7b`.
        revision: Branch, tag or commit on the Hub. Defaults to the main branch.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ConnectionError: The Hub cannot be reached.
        ValueError: The file is truncated or is not a tokenizer.
        ModuleNotFoundError: It is a tiktoken file, and tiktoken is not installed.
    """
    path, name = Path(name_or_path).expanduser(), str(name_or_path)
    folder = data_folder()
    for candidate in [path] + ([folder / "tokenizers" / path] if folder else []):
        if candidate.exists():
            return _read(candidate, name)
    if not HUB_NAME.fullmatch(name) or path.suffix in {".model", ".json", ".tiktoken"}:
        raise FileNotFoundError(
            f"no tokenizer at {name!r}: it is neither a file or folder, nor a name under "
            "$MLQ_DATA/tokenizers, nor a name on the Hugging Face Hub (owner/name)"
        )
    remedy = f"Put its files into a folder and give its path, or into $MLQ_DATA/tokenizers/{name}"
    return _read(from_hub("tokenizer", name, revision, _HUB_FILES, remedy), name)


def train(
    sentences: Iterable[str], vocabulary_size: int, name: str = "", **options: Any
) -> Tokenizer:
    """Train a tokenizer like LLaMA's: SentencePiece BPE with byte fallback and split digits.

    Args:
        sentences: The training text. No sentence may be longer than 4,192 bytes.
        vocabulary_size: Number of pieces, including the 256 byte pieces and 3 special ones.
        name: Name of the tokenizer. Defaults to the empty string.
        **options: Options of `SentencePieceTrainer.train`, which override LLaMA's.

    Raises:
        ValueError: The text is too small for the vocabulary, or the vocabulary is too small.
    """
    model = io.BytesIO()
    llama = {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "character_coverage": 0.9995,
        "normalization_rule_name": "identity",
        "num_threads": 1,  # makes training deterministic
        "minloglevel": 2,
    }
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocabulary_size,
            **llama | options,
        )
    except RuntimeError as error:
        raise ValueError(f"cannot train {vocabulary_size} pieces on this text: {error}") from error
    return wrap(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), name)


def train_byte_level(sentences: Iterable[str], vocabulary_size: int, name: str = "") -> Tokenizer:
    """Train a tokenizer like LLaMA-3's: BPE over bytes, with LLaMA-3's split of text into words.

    Its first tokens are <unk>, <s> and </s>, as SentencePiece has them. For the arguments see
    `train`.
    """
    found = tokenizers.Tokenizer(BPE())
    split = tokenizers.Regex(_splits()[128_000])
    words = [Split(split, "isolated"), ByteLevel(False, use_regex=False)]
    found.pre_tokenizer, found.decoder = PreTokenizers(words), decoders.ByteLevel()
    first = {"special_tokens": ["<unk>", "<s>", "</s>"], "initial_alphabet": ByteLevel.alphabet()}
    trainer = BpeTrainer(vocab_size=vocabulary_size, show_progress=False, **first)
    found.train_from_iterator(sentences, trainer)
    found.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap(found, name)


def _splits() -> dict[int, str]:
    return yaml.safe_load((PACKAGE_DATA / "splits.yaml").read_text("utf8"))


def _read(path: Path, name: str) -> Tokenizer:
    files = [path] if path.is_file() else [path / "tokenizer.model", path / "tokenizer.json"]
    for file in filter(Path.is_file, files):
        try:
            if file.suffix == ".json":
                return wrap(tokenizers.Tokenizer.from_file(str(file)), name)
            with file.open("rb") as opened:
                if _TIKTOKEN_LINE.match(opened.read(4096)):
                    return wrap(_tiktoken(file), name)
            return wrap(sentencepiece.SentencePieceProcessor(model_file=str(file)), name)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception
            raise ValueError(f"{file} is truncated or not a tokenizer file: {error}") from error
    from transformers import AutoTokenizer  # imported late because it takes seconds

    try:
        return wrap(AutoTokenizer.from_pretrained(path, trust_remote_code=False), name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileNotFoundError(
            f"no tokenizer in {name!r}: neither tokenizer.model, nor tokenizer.json, nor files "
            f"that transformers can read ({str(error).splitlines()[0]})"
        ) from error


def _tiktoken(file: Path) -> Any:
    """Read a `tiktoken.Encoding` from the file of LLaMA-3 or LLaMA-4."""
    try:
        import tiktoken.load
    except ModuleNotFoundError as error:
        remedy = 'pip install "mlq_utils[tiktoken]"'
        raise ModuleNotFoundError(f"{file} is a tiktoken file; to read it, {remedy}") from error
    # tiktoken keeps a copy by the path. With the checksum it notices that the file has changed.
    ranks = tiktoken.load.load_tiktoken_bpe(str(file), sha256(file))
    splits = _splits()
    if len(ranks) not in splits:
        raise ValueError(
            f"it has {len(ranks):,} tokens, but LLaMA-3 has 128,000 and LLaMA-4 has 200,000; for "
            "another model, pass a tiktoken.Encoding"
        )
    return tiktoken.Encoding(
        file.name, pat_str=splits[len(ranks)], mergeable_ranks=ranks, special_tokens={}
    )


def wrap(tokenizer: Any, name: str = "") -> Tokenizer:
    """Wrap a tokenizer of SentencePiece, tokenizers, tiktoken or transformers (fast or ByT5's).

    Args:
        tokenizer: The tokenizer. A `Tokenizer` is returned as it is.
        name: Name of the tokenizer. Defaults to the name that transformers knows.

    Raises:
        TypeError: The object is none of these, for example a slow transformers tokenizer.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, sentencepiece.SentencePieceProcessor):
        table = _sentencepiece_bytes(tokenizer)
        return Tokenizer(name, tokenizer, *table, tokenizer.encode, tokenizer.decode)
    # No object of these classes exists before its module is imported, which may take seconds.
    if (module := sys.modules.get("tiktoken")) and isinstance(tokenizer, module.Encoding):
        pieces, encode = _tiktoken_pieces(tokenizer), tokenizer.encode_ordinary_batch
        return _byte_level(name or tokenizer.name, tokenizer, pieces, encode)
    if (module := sys.modules.get("transformers")) and isinstance(tokenizer, module.ByT5Tokenizer):
        first = tokenizer.offset  # the ids are the bytes, after a few special tokens
        pieces = [None] * first + [bytes([byte]) for byte in range(256)]
        pieces += [None] * (len(tokenizer) - len(pieces))
        encode = lambda texts: [[first + byte for byte in text.encode()] for text in texts]  # noqa: E731
        return _byte_level(name or tokenizer.name_or_path, tokenizer, pieces, encode)
    if hasattr(tokenizer, "backend_tokenizer"):  # a fast transformers tokenizer
        name = name or tokenizer.name_or_path
        tokenizer = tokenizer.backend_tokenizer
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(
            f"cannot analyse a tokenizer of type {type(tokenizer).__name__}; pass a "
            "SentencePieceProcessor, a tokenizers.Tokenizer, a tiktoken.Encoding or a fast or "
            "byte-level transformers tokenizer"
        )
    return Tokenizer(
        name,
        tokenizer,
        *_tokenizers_bytes(tokenizer),
        lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)],
        lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
    )


def _tiktoken_pieces(encoding: Any) -> Iterator[bytes | None]:
    for i in range(encoding.n_vocab):
        try:
            yield None if encoding.is_special_token(i) else encoding.decode_single_token_bytes(i)
        except KeyError:  # OpenAI's encodings skip some ids before the special ones
            yield None


def _byte_level(
    name: str, backend: Any, pieces: Iterable[bytes | None], encode: Callable
) -> Tokenizer:
    """Wrap a tokenizer whose pieces are bytes, with None for special tokens."""
    pieces = tuple(pieces)
    # A token that is not made of whole characters does not survive decoding.
    broken = (p is not None and p.decode(errors="ignore").encode() != p for p in pieces)
    decode = lambda ids: b"".join(pieces[i] or b"" for i in ids).decode(errors="replace")  # noqa: E731
    return Tokenizer(name, backend, pieces, np.fromiter(broken, bool), encode, decode)


def _sentencepiece_bytes(model: sentencepiece.SentencePieceProcessor) -> _Table:
    """Return `token_bytes` and `is_byte` of a SentencePiece model."""
    ids = range(len(model))
    is_byte = np.array([model.is_byte(i) for i in ids])
    pieces = [_piece_bytes(model.id_to_piece(i)) for i in ids]
    special = [model.is_control(i) or model.is_unknown(i) for i in ids]
    return tuple(None if no else piece for piece, no in zip(pieces, special, strict=True)), is_byte


def _tokenizers_bytes(tokenizer: tokenizers.Tokenizer) -> _Table:
    """Return `token_bytes` and `is_byte`, read from the tokenizer's JSON."""
    spec = json.loads(tokenizer.to_str())
    byte_level = '"ByteLevel"' in json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
    added = {token["id"]: token for token in spec.get("added_tokens", [])}
    to_byte = _byte_alphabet()
    token_bytes: list[bytes | None] = [None] * tokenizer.get_vocab_size()
    is_byte = np.zeros(len(token_bytes), dtype=bool)
    for piece, i in tokenizer.get_vocab().items():
        if i in added:
            token_bytes[i] = None if added[i]["special"] else added[i]["content"].encode()
        elif byte_level:
            token_bytes[i] = text = bytes(to_byte[c] for c in piece)
            # A token that is not made of whole characters does not survive decoding.
            is_byte[i] = text.decode(errors="ignore").encode() != text
        else:
            token_bytes[i] = _piece_bytes(piece.removeprefix("##"))
            is_byte[i] = _BYTE_PIECE.fullmatch(piece) is not None
    return tuple(token_bytes), is_byte


def _piece_bytes(piece: str) -> bytes:
    """Return the bytes that a piece of a SentencePiece vocabulary stands for."""
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of the alphabet of byte-level BPE stands for.

    By GPT-2's rule, printable Latin-1 characters stand for themselves, and the characters from
    U+0100 on stand for the other bytes in order.
    """
    alphabet = set(ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    return own | {chr(256 + n): byte for n, byte in enumerate(others)}
