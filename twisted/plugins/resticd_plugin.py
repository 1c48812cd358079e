"""Makes ``twistd resticd`` known to Twisted."""

from twisted.application.service import ServiceMaker

resticd = ServiceMaker(
    "resticd",
    "resticd.service",
    "Serve restic's REST backend API over a directory or a remote.",
    "resticd",
)
