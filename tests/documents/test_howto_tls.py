"""``docs/howto/tls.md``: what is to be tried with a certificate of one's own."""

from __future__ import annotations

import pytest

from ..support import PYTHON
from ..support.pages import Command, Reader, blocks, commands

pytestmark = pytest.mark.slow

PAGE = "docs/howto/tls.md"


def test_own_certificate_does_what_the_page_says(reader: Reader) -> None:
    """The hub, the command, curl and the library trust it when they are told to."""
    found = [text for language, text in blocks(PAGE) if language in ("console", "python")]
    (make, start), (connect, curl), *programs = commands(found[0]), commands(found[1]), *found[2:]
    assert len(programs) == 2
    reader.run(make)
    hub = reader.start_hub(start)
    desk = reader.open(connect)
    hub.wait_for("joined /scores")
    reader.run(curl)
    reader.run(Command("cp cert.pem company-ca.pem", ""))
    for program in programs:
        reader.place.joinpath("program.py").write_text(reader.here(program))
        reader.run(Command(f"{PYTHON} -W error program.py", ""))
    for text in ("goal", "1:0", "2:0", "3:0"):
        desk.wait_for(text)
    for window in (desk, hub):
        window.type("\x03")
        assert window.end() == 0
    assert "WARNING" not in hub.shown and "Traceback" not in hub.shown
