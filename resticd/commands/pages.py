"""What ``resticd help`` says of each command, beside its flags."""

from __future__ import annotations

from attrs import frozen


@frozen
class Example:
    """One command line, and what it is for."""

    what: str
    line: str


@frozen
class Page:
    """The description of one command.

    :ivar paragraphs: each one is wrapped.
    :ivar examples: shown as they are.
    :ivar sections: further titles, each with terms and what they mean.
    """

    paragraphs: tuple[str, ...]
    examples: tuple[Example, ...] = ()
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


REMOTES = (
    "REMOTE is named as in rclone: a directory, remote:path where remote is a section of the remotes file, or a "
    "connection string such as :s3,provider=AWS,env_auth:bucket/path. :memory: keeps everything in memory."
)

PAGES: dict[tuple[str, ...], Page] = {
    ("serve", "restic"): Page(
        (
            "Serve restic repositories on REMOTE over restic's REST protocol, in the foreground. Any path of the URL "
            "is a repository: rest:http://localhost:8080/, rest:http://localhost:8080/laptop/. Every upload is "
            "checked against its SHA-256 and is stored durably before it is called a success. The log goes to "
            "standard error.",
            REMOTES,
            "With --stdio no port is opened: HTTP/2 is spoken on standard input and output, which is how restic runs "
            "rclone; resticd takes its place, under its own name or as a link that is called rclone. It ends with "
            "status 0 when standard input is closed, once what was asked for in full is decided; what is not complete "
            "is thrown away. Whoever can start it may do everything, so it asks for no login.",
            "Flags of rclone that have no meaning here are taken and mentioned in the log at level DEBUG; flags that "
            "nobody knows are errors.",
        ),
        (
            Example("A directory, for this machine alone", "resticd serve restic /srv/backups"),
            Example(
                "For the network, with TLS and logins, where nobody can delete backups",
                "resticd serve restic --addr :8000 --cert cert.pem --key key.pem \\\n"
                "    --htpasswd users --private-repos --append-only /srv/backups",
            ),
            Example(
                "A bucket that rclone.conf describes, slower by day",
                "resticd serve restic --bwlimit '08:00,2M 19:00,off' store:bucket/restic",
            ),
            Example(
                "In rclone's place, started by restic itself",
                "restic -o rclone.program=resticd -r rclone:store:bucket/restic snapshots",
            ),
        ),
        (
            (
                "SIGNALS",
                (
                    (
                        "SIGTERM, SIGINT",
                        "Stop: running transfers may go on for --shutdown-timeout. A second signal breaks them off.",
                    ),
                    ("SIGHUP", "Read settings, passwords and remotes anew, and open log files again."),
                    ("SIGUSR1", "Log a report of transfers."),
                    ("SIGUSR2", "Switch --bwlimit off or on."),
                ),
            ),
            ("EXIT STATUS", (("0", "It was stopped, or standard input was closed."), ("1", "It could not start."))),
        ),
    ),
    ("check-config",): Page(
        (
            "Read the command line, the environment, the settings file and the remotes file, as the server would, and "
            "print a line for each setting: its name, its value, and where that came from. Secrets are not shown. A "
            "mistake is one line on standard error, which names the flag, variable or line of a file, and status 1. "
            "Nothing is served and no remote is asked.",
        ),
        (
            Example("What differs from the defaults", "resticd check-config --settings resticd.toml | grep -v default"),
            Example("Before a reload", "resticd check-config --settings resticd.toml && kill -HUP $PID"),
        ),
    ),
    ("lsd",): Page(
        (
            "Print the names of the directories at the root of REMOTE, one a line: to see that it can be reached, and "
            "what repositories there are. Where the storage cannot name directories by themselves all files below "
            "REMOTE are listed for it, which takes as long as resticd ls does.",
            REMOTES,
        ),
        (Example("The repositories of a bucket", "resticd lsd store:bucket/restic"),),
    ),
    ("ls",): Page(
        (
            "Print size in bytes and path of every file below REMOTE, in no order. Unfinished uploads are not shown. "
            "A list that ends with status 0 was complete.",
            REMOTES,
        ),
        (Example("The largest files of a repository", "resticd ls store:bucket/restic/laptop | sort -n | tail"),),
    ),
    ("obscure",): Page(
        (
            "Print PASSWORD in the form in which rclone.conf holds passwords. That hides it from a glance only: "
            "anybody can undo it, as rclone's key for it is public. Since other users of a machine see command lines, "
            "- reads the password from standard input.",
        ),
        (Example("Without showing it to anybody", "resticd obscure - < password-file"),),
    ),
    ("htpasswd",): Page(
        (
            "Print a line for the file that --htpasswd names, with a bcrypt hash. The password is asked for on the "
            "terminal, twice, or read from standard input; bcrypt looks at its first 72 bytes. A running server reads "
            "the file again when it changes.",
        ),
        (
            Example("One more user", "resticd htpasswd laptop >> /etc/resticd/htpasswd"),
            Example("From a script", "pwgen -s 32 1 | tee password | resticd htpasswd laptop"),
        ),
    ),
    ("version",): Page(("Print the version of resticd, and of what it runs on.",)),
    ("completion",): Page(
        ("Print a script that lets a shell complete commands, flags, their values and file names.",),
        (
            Example(
                "bash, for this user", "resticd completion bash > ~/.local/share/bash-completion/completions/resticd"
            ),
            Example("zsh, in a directory of $fpath", "resticd completion zsh > ~/.zfunc/_resticd"),
            Example("For this session alone", 'eval "$(resticd completion bash)"'),
        ),
    ),
    ("help",): Page(
        ("Without COMMAND list all commands. With one, explain it, its flags and what it is good for.",),
        (Example("All that can be set", "resticd help serve restic"),),
    ),
}
