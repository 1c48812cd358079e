"""``resticd completion``: scripts that complete command lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from resticd.cli import COMMANDS, WITH_FLAGS, plain_arguments
from resticd.config.flags import Flag
from resticd.config.settings import FLAGS
from resticd.config.sources import SETTINGS
from resticd.errors import ConfigurationError

_LEVELS = ("DEBUG", "INFO", "NOTICE", "ERROR", "CRITICAL")
#: Flags that have one of a few values, besides those whose metavar lists them (``on|off``).
_VALUES = {
    "log-level": _LEVELS,
    "stats-log-level": _LEVELS,
    "stats-unit": ("bits", "bytes"),
    "min-tls-version": ("tls1.0", "tls1.1", "tls1.2", "tls1.3"),
}


def completion(argv: Sequence[str]) -> int:
    """Print a completion script."""
    scripts = {"bash": _BASH, "zsh": _ZSH}
    words = plain_arguments(argv)
    if len(words) != 1 or words[0] not in scripts:
        raise ConfigurationError("completion: for which shell: bash or zsh?")
    flags = (SETTINGS, *FLAGS)
    text = scripts[words[0]].lstrip()
    for name, value in {
        "COMMANDS": _joined({command.words[0] for command in COMMANDS}),
        "WITH_FLAGS": "|".join(sorted(words[0] for words in WITH_FLAGS)),
        "SWITCHES": _joined(f"--{flag.name}" for flag in flags if flag.is_switch),
        "VALUED": _joined(f"--{flag.name}" for flag in flags if not flag.is_switch),
        "FILES": "|".join(f"--{flag.name}" for flag in flags if flag.metavar == "FILE"),
        "CHOICES": "\n".join(
            f"        --{flag.name}) choices='{' '.join(values)}' ;;" for flag in flags if (values := choices(flag))
        ),
        "PLAIN": "|".join(f"--{flag.name}" for flag in flags if flag.metavar not in ("", "FILE") and not choices(flag)),
    }.items():
        text = text.replace(f"@{name}@", value)
    sys.stdout.write(text)
    return 0


def choices(flag: Flag) -> tuple[str, ...]:
    """The few values that a flag can have; none where there are many."""
    if re.fullmatch(r"[a-z]+(\|[a-z]+)+", flag.metavar):
        return tuple(flag.metavar.split("|"))
    return _VALUES.get(flag.name, ())


def _joined(words: Iterable[str]) -> str:
    return " ".join(sorted(words))


# bash cuts words at = and :, hence the looks at what stands before.
_BASH = r"""
# bash completion for resticd
_resticd() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} choices= flag=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
        return
    fi
    case $word,$before in
        =,--*) flag=$before word= ;;
        *,=) flag=${COMP_WORDS[COMP_CWORD-2]} ;;
        *,--*) flag=$before ;;
    esac
    case $flag in
@CHOICES@
        @FILES@)
            compopt -o filenames
            local IFS=$'\n'
            COMPREPLY=($(compgen -f -- "$word"))
            return ;;
        @PLAIN@) return ;;
    esac
    if [ -n "$choices" ]; then
        COMPREPLY=($(compgen -W "$choices" -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
        completion) COMPREPLY=($(compgen -W "bash zsh" -- "$word")); return ;;
        help)
            if [ "$before" = serve ]; then
                COMPREPLY=($(compgen -W "restic" -- "$word"))
            elif [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
            fi
            return ;;
        serve)
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "restic" -- "$word"))
                return
            fi ;;
    esac
    case ${COMP_WORDS[1]} in
        @WITH_FLAGS@)
            if [[ $word == -* ]]; then
                COMPREPLY=($(compgen -W "--help @SWITCHES@ @VALUED@" -- "$word"))
            else
                compopt -o filenames
                local IFS=$'\n'
                COMPREPLY=($(compgen -d -- "$word"))
            fi ;;
    esac
}
complete -F _resticd resticd
"""

_ZSH = r"""
#compdef resticd
# zsh completion for resticd
_resticd() {
    local word=$words[CURRENT] flag= choices=
    if (( CURRENT == 2 )); then
        compadd -- @COMMANDS@
        return
    fi
    if [[ $word == --*=* ]]; then
        flag=${word%%=*}
        compset -P '*='
    elif [[ $words[CURRENT-1] == --* ]]; then
        flag=$words[CURRENT-1]
    fi
    case $flag in
@CHOICES@
        @FILES@) _files; return ;;
        @PLAIN@) return ;;
    esac
    if [[ -n $choices ]]; then
        compadd -- ${=choices}
        return
    fi
    case $words[2] in
        completion) compadd -- bash zsh; return ;;
        help)
            if [[ $words[CURRENT-1] == serve ]]; then
                compadd -- restic
            elif (( CURRENT == 3 )); then
                compadd -- @COMMANDS@
            fi
            return ;;
        serve)
            if (( CURRENT == 3 )); then
                compadd -- restic
                return
            fi ;;
    esac
    case $words[2] in
        @WITH_FLAGS@)
            if [[ $word == -* ]]; then
                compadd -- --help @SWITCHES@ @VALUED@
            else
                _files -/
            fi ;;
    esac
}
if [ "$funcstack[1]" = _resticd ]; then
    _resticd "$@"
else
    compdef _resticd resticd
fi
"""
