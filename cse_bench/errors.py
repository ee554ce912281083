"""Errors a user can cause, and can fix.

Every message says what was given, what is allowed and what to do. The command line prints the message alone, without a
traceback; anything that is not one of these is a bug of ours and keeps its traceback.
"""


class CSEBenchError(Exception):
    """Base of all errors that are answered by changing the command, the data or the machine."""


class ConfigError(CSEBenchError):
    """A config key, value or combination is not valid. Raised before any weights are loaded."""


class BusyError(ConfigError):
    """Another process is at this run."""


class DataError(CSEBenchError):
    """A corpus or evaluation file is missing, damaged or not what it should be. Names file and line."""


class EncoderError(CSEBenchError):
    """Weights, tokenizer or a saved encoder cannot be loaded, or not in the way that was asked for."""


class TrainingError(CSEBenchError):
    """Training cannot go on without giving a wrong result."""


def first_line(error: BaseException) -> str:
    """What another library's error says, for a message of ours; its further lines are advice on that library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
