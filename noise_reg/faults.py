"""What went wrong, in the user's words: an exception that an input or the machine caused becomes one message with a remedy.

`explanation` is the only place that knows how. What it does not know is a fault of the program: `entry` keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from noise_reg.errors import UserError

NO_SPACE = "free space or choose another {setting}=..."
NO_ACCESS = "make it readable and writable or choose another {setting}=..."
OTHER_PLACE = "choose another {setting}=..."
REMEDIES = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: NO_SPACE,
    errno.EFBIG: NO_SPACE,
    errno.EACCES: NO_ACCESS,
    errno.EPERM: NO_ACCESS,
    errno.EROFS: NO_ACCESS,
    errno.ENAMETOOLONG: "choose a shorter path with {setting}=...",
    errno.ELOOP: "its links lead in a circle: remove them, or choose another {setting}=...",
    errno.ENOENT: "create it, or choose another {setting}=...",
    errno.EISDIR: "a folder stands where a file should: remove it, or choose another {setting}=...",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or take fewer runs at once",
    errno.ENFILE: "raise the system's limit on open files, or take fewer runs at once",
    errno.EAGAIN: "the system refused another process or thread: take workers=1, or raise the limit (ulimit -u)",
}
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|Storage size calculation overflowed"
    r"|numel: integer multiplication overflow|invalid array size|array is too big|Maximum allowed dimension exceeded",
    re.IGNORECASE,
)
MEMORY_REMEDY = (
    "Remedy: a smaller network (arch.widths, arch.filters), a smaller optimizer.batch_size, fewer runs at once (stack_size=1, "
    "workers=1), or a machine with more memory; finished runs are stored"
)
CONFIGURATION = ("hydra", "omegaconf", "yaml", "antlr4")  # packages that read what a user wrote


def explanation(error: BaseException, *, composing: bool) -> str | None:
    """The message for the user, or None where the input is not to blame. `composing`: nothing but a configuration was read yet."""
    chain = list(causes(error))
    for kind in (UserError, yaml.YAMLError):
        for link in chain:
            if isinstance(link, kind):
                return str(link) if isinstance(link, UserError) else of_yaml(link)
    for link in chain:
        if is_memory(link):
            return f"memory: not enough of it: {one_line(link)}. {MEMORY_REMEDY}."
    if is_of_configuration(error):
        return of_configuration(error)
    if isinstance(error, OSError):
        return of_system(error)
    if composing:
        if isinstance(error, UnicodeError):
            return (
                f"a configuration file or an argument is not UTF-8 text: {one_line(error)}. Remedy: save it as UTF-8."
            )
        if isinstance(error, RecursionError):
            return "the configuration is nested too deeply, or refers to itself. Remedy: look at the file or override added last."
        return (
            f"the configuration cannot be composed: {type(error).__name__}: {one_line(error)}. Remedy: look at the overrides, and at "
            "the files of your own configuration folder, which must hold mappings as those in conf/ do."
        )
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it was raised from or while handling."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def one_line(error: BaseException) -> str:
    """The exception's message without line breaks inside a sentence; its type where it has none."""
    return str(error).strip().rstrip(".") or type(error).__name__


def is_of_configuration(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in CONFIGURATION


def of_configuration(error: BaseException) -> str:
    """The message of Hydra or OmegaConf, with the field and the remedy where it lacks them."""
    message, field = one_line(error), getattr(error, "full_key", None)
    if "nterpolation" in message and field:
        referring = [argument.partition("=")[0] for argument in sys.argv[1:] if "${" in argument]
        field = referring[0] if field.startswith("hydra.") and referring else field  # Hydra's own refer to ours
        return f"{field}: this reference cannot be followed: {message.splitlines()[0]}. Remedy: give {field} a value of its own"
    if "override_grammar" not in message:
        return message
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if value.startswith("~"):
            return f"{argument}: a ~ must be quoted. Remedy: \"{name}='{value}'\" with both quotes, or {name}=$HOME{value[1:]}"
    return f"{message}\nRemedy: quote text that holds anything but letters, digits and simple signs, as \"<name>='<text>'\" with both quotes"


def is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError | RuntimeError | ValueError | OverflowError)
        and (getattr(error, "errno", None) == errno.ENOMEM or bool(OUT_OF_MEMORY.search(str(error))))
    )


def of_yaml(error: yaml.YAMLError) -> str:
    """Names file, line and column."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = (
        f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(getattr(error, "name", "YAML"))
    )
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or one_line(error)
    tab = "; a tab is no indentation in YAML: use spaces" if "'\\t'" in str(what) else ""
    return f"{where}: cannot be read as YAML: {what}{tab}. Remedy: mend that line."


def of_system(error: OSError) -> str:
    """Names the file that the system refused, why, and the setting that leads there."""
    path = error.filename2 or error.filename
    reason = os.strerror(error.errno) if error.errno else one_line(error)
    if not isinstance(path, str | bytes | os.PathLike):
        remedy = REMEDIES.get(error.errno or 0, "")
        remedy = remedy if "{" not in remedy else "free space or make it writable"
        return f"the system refused: {reason}. Remedy: {remedy or 'see to that'}, and run the same command again."
    name = os.fsdecode(path)
    remedy = REMEDIES.get(error.errno or 0, OTHER_PLACE).format(setting=setting_of(name))
    return f"{name}: {reason}. Remedy: {remedy}; nothing already stored is lost."


def setting_of(name: str) -> str:
    """The setting on the command line whose path `name` is or lies in; 'store' where none is."""
    for argument in sys.argv[1:]:
        setting, found, value = argument.lstrip("+-").partition("=")
        value = value.strip("'\"")
        if found and value and within(name, value):
            return setting
    return "store"


def within(name: str, folder: str) -> bool:
    """Whether the path `name` is `folder`, in it, or above it: a folder is made from its parents on."""
    try:
        one, other = Path(name).absolute(), Path(folder).expanduser().absolute()
    except (OSError, RuntimeError, ValueError):
        return False
    return one == other or other in one.parents or (one in other.parents and len(one.parts) > 1 and "/" in folder)
