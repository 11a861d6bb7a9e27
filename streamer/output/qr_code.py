"""An address as a QR code (ISO/IEC 18004) that a phone's camera reads: for a terminal, and as a picture for a page.

The code is segno's, which is optional (`streamer[phone]`, `streamer[notify]`): without it there is none.
"""

import io
import sys

BORDER = 2  # modules; the standard asks for four, cameras are content with two and a window has few rows
WHITE_ON_BLACK = "\x1b[97;40m"  # the blocks are the light modules, whatever the terminal's colours are
AS_BEFORE = "\x1b[0m"
MISSING = "for a code that the camera reads: pip install '.[notify]' in Streamer's folder"


def for_terminal(text: str, *, colours: bool = True) -> str | None:
    """Lines of half blocks, two rows of modules each; None without segno. `colours`: the terminal can show them."""
    try:
        import segno
    except ImportError:
        return None
    out = io.StringIO()
    segno.make_qr(text).terminal(out, border=BORDER, compact=True)
    lines = out.getvalue().splitlines()
    return "\n".join(f"{WHITE_ON_BLACK}{line}{AS_BEFORE}" if colours else line for line in lines)


def below(text: str) -> str:
    """The code on lines of its own, where stderr is a terminal that somebody looks at; elsewhere ""."""
    return f"\n{for_terminal(text) or MISSING}" if sys.stderr.isatty() else ""


def as_svg(text: str) -> str | None:
    """A picture of its own on white, which also stands inside a page; None without segno."""
    try:
        import segno
    except ImportError:
        return None
    return str(segno.make_qr(text).svg_inline(scale=6, border=4, light="#fff"))
