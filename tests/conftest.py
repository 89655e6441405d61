"""What the tests share: where real data is looked for, repeatable runs, the smoke book."""

import os
import random
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import filelock
import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import settings

from mlq_utils import corpora, experiments, tokenization
from mlq_utils.data import cache_folder

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared/data"

# Two workers on two cores: one thread each. Set before torch, which tests import, counts them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
if SHARED.is_dir():
    os.environ.setdefault("MLQ_DATA", str(SHARED))

settings.register_profile("mlq", deadline=None)  # two busy cores: time says nothing
settings.load_profile("mlq")


@pytest.fixture(autouse=True)
def seeds():
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def root():
    return ROOT


def pytest_collection_modifyitems(items):
    """Put tests first that share what takes long.

    The smoke book is made while another worker runs the rest. A worker that has nothing left takes
    tests from the end, so it does not start the other processes a second time, or late.
    """
    shared = ("site", "launched", "cluster")

    def place(item):
        used = getattr(item, "fixturenames", ())
        return next((n for n, name in enumerate(shared) if name in used), len(shared))

    items.sort(key=place)


@pytest.fixture(scope="session")
def machine_paths():
    """A pattern of the paths of this machine, which no page may show."""
    folders = [ROOT, Path.home(), Path(sysconfig.get_path("purelib")), cache_folder()]
    if os.environ.get("MLQ_DATA"):
        folders.append(Path(os.environ["MLQ_DATA"]))
    places = [re.escape(str(folder.resolve())) for folder in folders if len(folder.parts) > 1]
    return re.compile(rf"(?<![\w.])(?:{'|'.join(places)})(?!\w)")


@pytest.fixture(scope="session")
def site(testrun_uid):
    """The smoke book as a reader gets it; beside `_build/html`, which is the user's."""
    folder = ROOT / "_build/smoke"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "testrun"  # names the run of the tests that made the book last
    command = [sys.executable, "-m", "mlq_utils", "book", "--profile", "smoke"]
    with filelock.FileLock(folder / "lock"):  # one worker makes it, the others wait
        if not made.exists() or made.read_text() != testrun_uid:
            options = ["--site", folder / "html", "--languages", "cy", "km", "ro", "ur"]
            done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made.write_text(testrun_uid)
    return folder / "html"


@pytest.fixture(scope="session")
def data():
    """The folder of real data; a test that needs it skips where there is none."""
    folder = os.environ.get("MLQ_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: MLQ_DATA names no folder and ../shared/data is not there")
    return Path(folder)


@pytest.fixture
def no_local_data(monkeypatch, tmp_path):
    """No local copy of any corpus, and an empty cache; gives the cache's folder."""
    monkeypatch.delenv("MLQ_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture(scope="session")
def llama(data):
    if not (data / "tokenizers/llama/tokenizer.model").is_file():
        pytest.skip("no LLaMA tokenizer in the data folder")
    return tokenization.load("llama")


@pytest.fixture(scope="session")
def flores(data):
    """A language's sentences of the FLORES-200 devtest."""
    if corpora.find("flores200") is None:
        pytest.skip("no FLORES-200 in the data folder")
    return lambda language: corpora.load("flores200", language, "devtest")["target"].tolist()


@pytest.fixture(scope="session")
def mixed_sentences():
    """Text in many scripts, with characters of one to four bytes side by side."""
    languages = ("en", "ro", "vi", "te", "km", "am", "he", "ja", "ko", "ru", "ta", "lo", "my")
    rows = [corpora.load("cldr", c, "test", size=12)["target"] for c in languages]
    mixed = ["ក្រុម E0 తెలుగు 🙂🙃 ⵣ ภาษา", "𐐷𐑊𐑉 ኢትዮጵያ é ế ꦗꦮ 가나다", "a\u0301 \u200b x"]
    return [s for row in rows for s in row] + mixed


@pytest.fixture(scope="session")
def tokenizers_by_name(mixed_sentences):
    """A tokenizer of each kind that falls to bytes, trained here: nothing to download."""
    byte_level = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = tokenizers.decoders.ByteLevel()
    byte_level.train_from_iterator(
        mixed_sentences,
        tokenizers.trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    wrapped = tokenization.wrap(byte_level, "byte-level")
    ranks = {piece: i - 1 for i, piece in enumerate(wrapped.token_bytes) if piece}
    encoding = tiktoken.Encoding(
        "small",
        pat_str=r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": len(ranks) + 1},  # an id is left free, as in OpenAI's
    )
    return {
        "sentencepiece": corpora.english_centric_tokenizer(1500, sentences=4000),
        "byte-level": wrapped,
        "tiktoken": tokenization.wrap(encoding),
    }


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A base of a few steps: its scores mean nothing, its files are those of any base."""
    # Not above, since the process that starts the workers needs no torch.
    from mlq_utils.modeling import pretraining

    folder = tmp_path_factory.mktemp("base") / "tiny"
    recipe = pretraining.RECIPE | {
        "vocabulary_size": 700, "tokenizer_documents": 1500, "sequence_length": 64,
        "batch_size": 4, "steps": 8,
    }  # fmt: skip
    pretraining.pretrain(folder, 0, recipe)
    return folder


@pytest.fixture(scope="session")
def small(base):
    """A run of a few seconds on that base."""
    return experiments.Spec(
        languages=("ro",), targets=("ro", "km"), size=24, test_size=4, epochs=1, beam_size=2,
        base=str(base),
    )  # fmt: skip
