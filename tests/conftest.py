"""What the tests share: where real data is looked for, repeatable runs, the smoke book."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared/data"

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


@pytest.fixture(scope="session")
def site():
    """The smoke book as a reader gets it; beside `_build/html`, which is the user's."""
    folder = ROOT / "_build/smoke/html"
    command = [sys.executable, "-m", "mlq_utils.book", "--profile", "smoke", "--site", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
