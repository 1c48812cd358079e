"""The picture of the ratios."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.plot import picture
from bench.work import Sample


def test_bars_say_who_is_faster() -> None:
    """A bar lies right of the line at 1 where a server is faster, left where it is slower; times are turned."""

    def samples(value: float, unit: str) -> list[Sample]:
        return [Sample("row", unit, value, 0, 0)]

    results = {
        "PUT": {"rest-server": samples(100, "MB/s"), "resticd": samples(200, "MB/s"), "rclone": samples(50, "MB/s")},
        "start <&>": {"rest-server": samples(1, "s"), "resticd": samples(2, "s")},
        "only ours": {"resticd": samples(1, "s")},
    }
    root = ElementTree.fromstring(picture(results))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "start <&>" in texts
    assert "only ours" not in texts
    assert [text for text in texts if text in ("2.00", "0.50")] == ["2.00", "0.50", "0.50"]
    bars = [rect for rect in root.iter(f"{space}rect") if rect.get("height") == "8"]
    lefts = [float(bar.attrib["x"]) for bar in bars]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert lefts[1] == lefts[2]
    assert abs(lefts[1] + widths[1] - lefts[0]) < 0.2
