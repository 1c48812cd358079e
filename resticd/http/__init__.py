"""The REST protocol over HTTP/1.1 and HTTP/2; knows no storage."""

import sys

# Importing twisted.web.http imports Twisted's own HTTP/2 where it can, which nothing here uses (see h2_connection):
# 1.2 MiB, and a fiftieth of the time to start.
sys.modules.setdefault("twisted.web._http2", None)  # type: ignore[arg-type]  # the import fails, as without h2
