"""What may stand in the documentation as a command, and what is put in the place of what a test cannot have.

A command belongs to one kind. One that belongs to none fails the test: add it here, with what shows that it works.
"""

from dataclasses import dataclass

# -- kinds of commands, by their first words ------------------------------------------------------

RUN = "a run: composed and checked; executed with the substitutions below, or planned"
TOOL = "a command on finished runs: composed and checked; executed on a tiny run"
BENCHMARK = "a benchmark: it is there; too long for a test"
PYTEST = "pytest: executed where the page shows the file, else its paths are there"
EXAMPLE = "an example script: it is there; its own test executes it"
MAKE = "make: the target is there and `make --dry-run` accepts it"
PIP = "pip install: the extras and pins are those of pyproject.toml and Makefile"
SHELL = "the shell's own: executed in the page's folder"
WORKER = "the worker that torchrun or a scheduler starts: it is there, with these arguments"
ELSEWHERE = "needs an account, a network or a scheduler: only named here"
REFERENCE = "names a command without its arguments: the module is there"

TOOLS = ("evaluate", "report", "export", "encode", "search", "mine", "dashboard")
SHELL_WORDS = ("export", "printf", "mkdir", "cat", "cp", "head", "echo", ".", "cd")
FOREIGN = {  # first words -> why no test can run it
    ("wandb", "sync"): "uploads",
    ("wandb", "login"): "an account",
    ("hf", "auth", "login"): "an account",
    ("sbatch",): "SLURM",
    ("scontrol",): "SLURM",
    ("ray",): "a Ray cluster",
    ("[", "$?"): "the exit code inside a SLURM script",
    ("[", "$code"): "the exit code inside a SLURM script",
    ("exit",): "the end of a SLURM script",
    ("trap",): "a signal inside a SLURM script",
    ("wait",): "a command in the background of a SLURM script",
    ("set",): "an option of the shell inside a script",
    ("git", "clone"): "a repository elsewhere",
}

# -- words of a command ---------------------------------------------------------------------------

PLACEHOLDERS = {  # what a page leaves to its reader -> what the folder of the test has
    "outputs/RUN_DIRECTORY": "outputs/tiny",
    "outputs/RUN": "outputs/tiny",
    "RUN_DIRECTORY": "outputs/tiny",
    "RUN/model": "outputs/tiny/model",
    "RUN": "outputs/tiny",
    "outputs/<id>": "outputs/tiny",
    "ORGANISATION/NAME": "organisation/name",
    "NAME": "name",
    "PROJECT": "project",
    "DIRECTORY": "transformers",
    "DATA": "data",
    "FOLDER": "outputs",
    "FILE": "sentences.txt",
    "lines.txt": "sentences.txt",
    "my_sentences.txt": "sentences.txt",
}

# -- a real run in miniature: these replace what a command says of the same key -------------------

ENCODERS = "tiny_bert"  # for every backbone that is an encoder
DECODERS = "tiny_llama"
SMALLER = (
    "trainer=cpu",
    "trainer.max_steps=2",
    "trainer.enable_progress_bar=false",
    "data=text_file",
    "data.path=sentences.txt",
    "data.global_batch_size=16",
    "precision=32-true",
)
# A command that sets one of these keeps it: it is what the line is about.
KEPT = ("data.gradient_cache_rows", "data.max_length")
# What a method cannot work without on a hundred sentences, beside tests/methods/every.py.
NEEDS = {"postprocessed": ("method.sentences=50",)}
# Keys that the tiny run has no use for.
DROPPED = (
    "adapter",
    "backbone.path",
    "backbone.hub_id",
    "backbone.name",
    "debug",
    "logger",
    "paths.data",
    "study",
    "checkpoint_every_steps",
    "method.dimensions",  # 64 of 128; the tiny encoder has 32
)


# -- commands of which only the config is checked, by what they hold -----------------------------


@dataclass(frozen=True)
class Reason:
    """A word of a command, and why a command that has it is planned or checked but not executed."""

    word: str
    why: str


PLANNED = (
    Reason("trainer=gpu", "a GPU"),
    Reason("trainer=ddp_4gpu", "four GPUs"),
    Reason("trainer=fsdp_4gpu", "four GPUs"),
    Reason("trainer=ddp_cpu_2", "two processes; tests/distributed has them"),
    Reason("trainer.num_nodes", "several machines"),
    Reason("adapter=qlora", "a GPU"),
    Reason("backbone=llama", "7 B parameters"),
    Reason("backbone=mistral", "7 B parameters"),
    Reason("backbone=opt", "7 B parameters"),
    Reason("hydra/launcher=", "other processes; tests/results/test_sweep.py has them"),
    Reason("hydra/sweeper=", "a search; its own tests have it"),
    Reason("logger=wandb", "an account; tests/results/test_wandb.py has it offline"),
)
CHECKED = (
    Reason("backbone=hub", "the Hub"),
    Reason("sentence-transformers/", "the Hub"),
    Reason("organisation/name", "the Hub"),
    Reason("evaluation=transfer", "its data, and minutes"),
    Reason("evaluation=mteb", "its data"),
    Reason("wandb.project", "an account"),
    Reason("push_to_hub", "an account"),
    Reason("adapter=keep", "a run with an adapter; tests/cli has it"),
    Reason("[outputs/simcse-*,other]", "a second folder with runs"),
    Reason("input=-", "the standard input; tests/cli/test_encode.py has it"),
    Reason(".parquet", "a parquet file; tests/cli/test_encode.py has it"),
    Reason("nw=ID", "an account"),
)
