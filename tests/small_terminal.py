"""A terminal of a few lines of code: what stands on it after all that was written."""

import io
import re

TOKEN = re.compile(r"\x1b\[(?P<count>[\d;?]*)(?P<code>[A-Za-z])|(?P<text>[^\x1b])", re.DOTALL)


class SmallTerminal(io.StringIO):
    """Knows line ends, cursor up, erase the line or to the end of the screen, and nothing else.

    Rows are as long as they are written: it is for text that is narrower than the window. Colours and the cursor's
    visibility are passed over.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.row, self.column = [""], 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for token in TOKEN.finditer(text):
            if token["text"]:
                self._put(token["text"])
            elif token["code"] == "A":
                self.row -= int(token["count"] or 1)
                assert self.row >= 0, "above the top"
            elif token["code"] in "JK":
                kept = 0 if token["count"] == "2" else self.column
                self.rows[self.row] = self.rows[self.row][:kept]
                if token["code"] == "J":
                    del self.rows[self.row + 1 :]
            else:
                assert token["code"] == "m" or token["count"] == "?25", f"unknown: {token[0]!r}"
        return super().write(text)

    def _put(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        else:
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + sign + row[self.column + 1 :]
            self.column += 1

    @property
    def screen(self) -> str:
        return "\n".join(self.rows)
