"""How lists of names are read, and how counts and names that anybody may have chosen are written."""


def counted(number: int, thing: str) -> str:
    """Such as ``1 seed`` or ``1,200 examples``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def split_names(text: str) -> list[str]:
    """Split ``a,b[x=1,y=2],c`` at the commas outside brackets; spaces and empty names are dropped."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def printable(text: str) -> str:
    """Text with line ends, terminal escapes, and bytes that were no UTF-8 written as Python writes them in a string."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def inert(text: str) -> str:
    """Anybody's text as one line of CSV, with a quote before what a spreadsheet would take for a formula."""
    line = one_line(text)
    return f"'{line}" if line.lstrip().startswith(("=", "+", "-", "@")) else line


def one_line(text: str) -> str:
    """Anybody's text as one line that a terminal only shows: white space as spaces, what has no glyph as escapes."""
    return printable("".join(" " if c.isspace() else c for c in text))
