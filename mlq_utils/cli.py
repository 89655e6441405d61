"""The command line: `mlq COMMAND`, or the same as `python -m mlq_utils COMMAND`.

    mlq recommend cy                                   # how is Welsh best tuned?
    mlq run --languages cy --targets cy fr af          # tune, translate and score
    mlq run --config run.yaml --seed 1                 # with defaults from a YAML file
    mlq run --help                                     # all flags, with units and defaults
    mlq --tyro-print-completion bash                   # completion for bash, zsh or tcsh

Flags are generated from the dataclasses and functions of the Python interface. Each command imports
what it needs when it is chosen, so that help and advice do not wait for torch.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

REGISTRY = tyro.constructors.ConstructorRegistry()


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line on stderr."""
    args = list(sys.argv[1:] if args is None else args)
    everything = any(arg.startswith("--tyro-") for arg in args)  # a shell completes all flags
    try:
        commands = {
            name: make(args) if everything or args[:1] == [name] else _summary(summary)
            for name, (summary, make) in COMMANDS.items()
        }
        shown = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="mlq",
            description="Check, run and use the paper 'How Multilingual is Multilingual LLM?'.",
            args=args,
            config=(tyro.conf.OmitArgPrefixes,),
            registry=REGISTRY,
        )
    except (ValueError, OSError, ImportError) as error:
        print("mlq: error:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nmlq: interrupted. Finished work is kept, and the same command continues it.",
            file=sys.stderr,
        )
        return 130
    if shown:
        print(shown)
    return 0


def _summary(text: str) -> Callable[[], None]:
    """Return a stand-in for a command that was not chosen, for the list of commands."""

    def command() -> None: ...

    command.__doc__ = text
    return command


def run(args: Sequence[str]) -> Callable[..., str]:
    """Return the command `run`, with the defaults of the file that `--config` names."""
    from mlq_utils.experiments.spec import STORE, Spec, read_spec

    @dataclass(frozen=True)
    class Unchecked(Spec):
        __doc__ = Spec.__doc__

        def __post_init__(self) -> None:
            """Leave the check to `run`, since tyro would put its message into a box."""

    def run(
        spec: Unchecked,
        *,
        config: Path | None = None,
        store: str = STORE,
        save: Path | None = None,
        micro_batch: int | None = None,
        device_map: str | None = None,
    ) -> str:
        """Tune, translate and score a model.

        Args:
            spec: What to run.
            config: YAML file with fields of the specification, which flags override.
            store: Folder or URL where records are kept.
            save: Folder to save the tuned model in.
            micro_batch: Number of examples computed at once. None stands for as many as fit.
            device_map: "auto" spreads a model over several devices.
        """
        from mlq_utils.experiments import Store, runner

        options = {"save": save, "micro_batch": micro_batch, "device_map": device_map}
        return runner.report(Spec(**vars(spec)), Store(store), **options)

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(args)[0].config
    return functools.partial(run, spec=Unchecked(**vars(read_spec(path) if path else Spec())))


@REGISTRY.primitive_rule
def _extension(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Read `--extension method=bpe pieces=600`, for which tyro would make a subcommand."""
    if "Extension" not in str(info.type):
        return None  # before an import that other commands do not need
    from mlq_utils.modeling.extension import Extension

    if info.type != Extension | None:
        return None

    def parsed(given: list[str]) -> Extension | None:
        from pydantic import TypeAdapter

        pairs = [item.partition("=")[::2] for item in given if item != "None"]
        return TypeAdapter(Extension).validate_strings(dict(pairs)) if pairs else None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="FIELD=VALUE",
        instance_from_str=parsed,
        is_instance=lambda value: value is None or isinstance(value, Extension),
        str_from_instance=lambda e: [f"{k}={v}" for k, v in asdict(e).items()] if e else ["None"],
    )


def recommend(
    language: str,
    /,
    *,
    tokenizer: str | None = None,
    before: dict[str, float] | None = None,
    after: dict[str, float] | None = None,
    threshold: float | None = None,
    standard_error: float = 0.05,
    seed: int = 0,
) -> str:
    """Advise how to tune a language.

    Args:
        language: The paper's code of the language, such as cy.
        tokenizer: Your tokenizer, as a folder or a name on the Hub. It is measured on CLDR text.
        before: The untuned model's scores by target, such as `cy 1.2 af 3.4 ro 5.6`.
        after: Scores of the model tuned on the language, for the same targets.
        threshold: T of Equation 1. None stands for the mean of `before`.
        standard_error: Sampling error of a score as a share of the score.
        seed: Random seed for drawing that error.
    """
    from mlq_utils import corpora, quadrants, tokenization

    fertility = None
    if tokenizer is not None:
        pairs = corpora.load("cldr", language, "test", size=200)
        texts = {"en": pairs["source"].tolist(), language: pairs["target"].tolist()}
        fertility = tokenization.analyse(tokenization.load(tokenizer), texts)
    trial = {"before": before, "after": after, "threshold": threshold}
    return str(
        quadrants.recommend(
            language, fertility=fertility, standard_error=standard_error, seed=seed, **trial
        )
    )


def pretrain(*, folder: Path, seed: int = 0) -> str:
    """Pretrain a small base model like the packaged one, or continue with one.

    Args:
        folder: Folder for the model.
        seed: Random seed of the text, the tokenizer and the weights.
    """
    from mlq_utils.modeling import pretraining

    pretraining.pretrain(folder, seed)
    return f"{folder} holds the model."


def _from(module: str, name: str) -> Callable[[Sequence[str]], Callable[..., str]]:
    return lambda _: getattr(import_module(f"mlq_utils.{module}"), name)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], Callable[..., str]]]] = {
    "recommend": ("Advise how to tune a language.", lambda _: recommend),
    "claims": ("Show what the evidence says of each claim.", _from("claims", "report")),
    "run": ("Tune, translate and score a model.", run),
    "sweep": (
        "Plan or make the runs behind the paper's tables.",
        _from("experiments.sweep", "report"),
    ),
    "nlu": (
        "Score a model on tasks of language understanding.",
        _from("experiments.nlu", "report"),
    ),
    "corpora": ("Count the training pairs on this machine.", _from("corpora.inventory", "report")),
    "studies": ("Make the missing runs of the book.", _from("experiments.studies", "ship")),
    "pretrain": ("Pretrain a small base model.", lambda _: pretrain),
}
"""Each command with its summary and the function that makes it."""
