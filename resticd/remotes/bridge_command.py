"""How rclone is started: command line and environment.

Everything that may be a secret goes through the environment, which other users cannot read. What is served is a remote
of the type ``alias`` that exists in the environment alone and leads to what the user named, to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resticd.transport.settings import ClientSettings

if TYPE_CHECKING:
    from resticd.remotes.registry import RcloneSettings

#: The remote that stands for what is served. Such a name is nobody's.
NAME = "resticd_bridged_remote"

#: rclone's settings that would make other files of what is stored, hide some of it, or speak where we listen. They are
#: taken out of the environment and are not handed on: what resticd has flags for, the flags of ``serve`` and of the
#: remote control; logs and reports; filters and whatever decides that a file need not be copied.
_WITHHELD = re.compile(
    r"ADDR|ALLOW_ORIGIN|APPEND_ONLY|BASEURL|CACHE_OBJECTS|CERT|CLIENT_CA|HTPASSWD|KEY|MAX_HEADER_BYTES|MIN_TLS_VERSION"
    r"|PASS|PRIVATE_REPOS|REALM|RESPONSE_HEADER|SALT|SERVER_(READ|WRITE)_TIMEOUT|STDIO|TEMPLATE|USER|USER_FROM_HEADER"
    r"|CONFIG|BWLIMIT.*|TPSLIMIT.*|RC|RC_.*|METRICS_.*|LOG_.*|STATS.*|PROGRESS.*|VERBOSE|QUIET|SYSLOG.*|USE_JSON_LOG"
    r"|DUMP.*|INTERACTIVE|DRY_RUN|CPUPROFILE|MEMPROFILE"
    r"|FILTER.*|INCLUDE.*|EXCLUDE.*|FILES_FROM.*|HASH_FILTER|MAX_(AGE|DEPTH|DELETE.*|DURATION|SIZE|TRANSFER)"
    r"|MIN_(AGE|SIZE)|CUTOFF_MODE|IGNORE_.*|IMMUTABLE|UPDATE|SIZE_ONLY|CHECKSUM|NO_CHECK_DEST|INPLACE|NAME_TRANSFORM"
    r"|(COMPARE|COPY)_DEST|BACKUP_DIR|SUFFIX.*|METADATA_SET"
)
#: Of no use to rclone: how to reach the service manager, and what is restic's and ours.
_FOREIGN = re.compile(r"NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*|RESTIC_.*|RESTICD_.*")


def serve_arguments(bodies: Path, calls: Path) -> list[str]:
    """The command line: ``serve restic`` on one socket, which takes bodies, and the remote control on another."""
    return [
        *("serve", "restic", "--addr", f"unix://{bodies}", "--cache-objects=false", "--server-read-timeout=0"),
        *("--server-write-timeout=0", "--rc", "--rc-addr", f"unix://{calls}", "--rc-no-auth", "--rc-serve"),
        *("--rc-server-read-timeout=0", "--rc-server-write-timeout=0", "--rc-job-expire-duration=1s"),
        *("--rc-job-expire-interval=1s", "--use-json-log", "--log-level=INFO", "--stats=0", "--ask-password=false"),
        f"{NAME}:",
    ]


def serve_environment(settings: RcloneSettings, client: ClientSettings, target: str) -> dict[str, str]:
    """The environment: the daemon's own where it may mean something to rclone, and what was said by flags.

    :param target: what is served, as rclone names it.
    """
    environ = {
        key: value
        for key, value in settings.environ.items()
        if not _FOREIGN.fullmatch(key) and not (key.startswith("RCLONE_") and _WITHHELD.fullmatch(key[7:]))
    }
    environ.update(_of_flags(settings))
    environ.update(_of_client(client))
    environ["RCLONE_CONFIG"] = settings.config
    if settings.password_command:
        environ["RCLONE_PASSWORD_COMMAND"] = settings.password_command
    variable = f"RCLONE_CONFIG_{NAME.upper()}"
    environ[f"{variable}_TYPE"] = "alias"
    environ[f"{variable}_REMOTE"] = target
    return environ


def _of_flags(settings: RcloneSettings) -> Iterator[tuple[str, str]]:
    for name, value in settings.flags.items():
        variable = name.upper().replace("-", "_")
        if not _WITHHELD.fullmatch(variable):
            yield f"RCLONE_{variable}", value


def _of_client(client: ClientSettings) -> Iterator[tuple[str, str]]:
    yield "RCLONE_CONTIMEOUT", f"{client.contimeout:g}s"
    yield "RCLONE_TIMEOUT", f"{client.timeout:g}s"
    yield "RCLONE_LOW_LEVEL_RETRIES", str(client.low_level_retries)
    if client.user_agent != ClientSettings().user_agent:
        yield "RCLONE_USER_AGENT", client.user_agent
    if client.ca_cert:
        yield "RCLONE_CA_CERT", ",".join(f'"{path}"' for path in client.ca_cert)
    if not client.check_certificate:
        yield "RCLONE_NO_CHECK_CERTIFICATE", "true"
