"""The XML that S3 speaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from defusedxml.ElementTree import fromstring

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parse_xml(data: bytes, *roots: str) -> Element:
    """The root, which must have one of these names, all names without their namespaces. Raises ``ValueError``."""
    try:
        element: Element = fromstring(data)
    except ValueError:  # what defusedxml forbids
        raise
    except Exception as error:
        raise ValueError(f"not well-formed XML: {error}") from None
    for each in element.iter():
        each.tag = each.tag.rpartition("}")[2]
    if element.tag not in roots:
        raise ValueError(f"<{element.tag}> where <{roots[0]}> was expected")
    return element


def child_text(element: Element, name: str) -> str | None:
    """The text of the first child of that name: empty for an empty element, None where there is none."""
    child = element.find(name)
    return None if child is None else child.text or ""


def children(element: Element, name: str) -> Iterator[Element]:
    """All children of that name."""
    return iter(element.findall(name))


def complete_multipart(parts: list[str]) -> bytes:
    """The body of CompleteMultipartUpload for the ETags of parts 1, 2, …"""
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in enumerate(parts, 1)
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{listed}</CompleteMultipartUpload>'.encode()


def create_bucket(location: str) -> bytes:
    """The body of CreateBucket; empty where no location is asked for."""
    if not location:
        return b""
    constraint = f"<LocationConstraint>{escape(location)}</LocationConstraint>"
    return f'<CreateBucketConfiguration xmlns="{_NAMESPACE}">{constraint}</CreateBucketConfiguration>'.encode()


_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
