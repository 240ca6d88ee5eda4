"""Shell text as simple commands, as far as who writes which file can be told from it: sh(1), POSIX and bash.

Nothing is run. What an expansion stands for is not known here; a command in a condition, a loop, a function or behind
`&&` may never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MARK = "\x00"
"""Stands around the name of a variable in a word's text; twice without a name for any other expansion."""

_OPERATORS = (
    ";;&", "&>>", "<<<", "<<-", ";;", ";&", "&&", "||", "|&", "&>", "<<", ">>", ">|", ">&", "<&", "<>",
    ";", "&", "|", "(", ")", "<", ">",
)  # fmt: skip
_OPENING = frozenset(("if", "while", "until", "for", "case", "select", "{"))
_CLOSING = frozenset(("fi", "done", "esac", "}"))
_BETWEEN = frozenset(("then", "else", "elif", "do", "!", "time"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SPECIAL = frozenset("0123456789@*#?$!-")
_DEEPEST = 200


@dataclass(frozen=True)
class Word:
    """A word after quotes are removed. `literal` is false where the shell would expand something in it."""

    text: str
    literal: bool = True


@dataclass(frozen=True)
class Command:
    """A simple command: its words, where its output goes, and what it reads, `stdin` where that is text in the script.

    `plain` says that it runs whatever else happens.
    """

    line: int
    words: tuple[Word, ...]
    outputs: tuple[Word, ...] = ()
    stdin: Word | None = None
    source: Command | None = field(default=None, repr=False)
    plain: bool = True


def parse_shell(text: str, first_line: int = 1) -> list[Command]:
    """Every simple command of a script, in order; what cannot be read is passed over."""
    return list(_Parser(text, first_line).commands())


@dataclass
class _Token:
    kind: str
    text: str
    line: int
    word: Word = Word("")
    glued: bool = False


class _Parser:
    def __init__(self, text: str, first_line: int) -> None:
        self._text = text.replace("\\\r\n", "\\\n").replace("\r\n", "\n")
        self._at = 0
        self._line = first_line
        self._documents: list[tuple[str, bool, bool]] = []
        self._read: list[Word] = []

    def commands(self) -> Iterator[Command]:
        """The commands, with all that is around them in mind."""
        stack: list[str] = []
        words: list[Word] = []
        line = 0
        outputs: list[Word] = []
        stdin: Word | None = None
        source: Command | None = None
        documents: list[int] = []
        in_pattern = conditional = False
        redirect = ""
        waiting: list[tuple[Command, list[int]]] = []
        for token in self._tokens():
            if redirect and token.kind == "word":
                if redirect in (">", ">>", ">|", "&>", "&>>"):
                    outputs.append(token.word)
                elif redirect == "<<<":
                    stdin = token.word
                redirect = ""
                continue
            redirect = ""
            if token.kind == "word":
                bare = token.text
                if not words and stack and stack[-1] == "case" and in_pattern:
                    if bare == "esac":
                        stack.pop()
                        in_pattern = False
                    continue
                if not words and bare in _OPENING:
                    if len(stack) < _DEEPEST:
                        stack.append(bare)
                    if bare in ("for", "select", "case"):
                        words, line = [token.word], token.line
                    continue
                if not words and bare in _CLOSING:
                    if stack:
                        stack.pop()
                    continue
                if not words and bare in _BETWEEN:
                    continue
                if not words and bare == "function":
                    stack.append("function")
                    continue
                if words and words[0].text == "case" and stack and stack[-1] == "case" and bare == "in":
                    words, in_pattern = [], True
                    continue
                if not words:
                    line = token.line
                words.append(token.word)
                continue
            operator = token.text
            if operator in ("<<", "<<-"):
                documents.append(token.line)
                continue
            if operator in (">", ">>", ">|", "&>", "&>>", "<", "<<<", "<>", ">&", "<&"):
                # A file descriptor before it, such as that of errors, stands close to it.
                redirect = operator
                if token.glued and words and words[-1].text.isdigit() and words[-1].literal:
                    if words.pop().text != "1":
                        redirect = "other"
                    if not words and not outputs:
                        line = line or token.line
                continue
            if operator == "(":
                if words and token.glued:
                    # A function, or an array: neither is a command.
                    words = [] if not words[-1].text.endswith("=") else words[:-1]
                    stack.append("()")
                else:
                    stack.append("(")
                continue
            if operator == ")" and in_pattern and stack and stack[-1] == "case":
                in_pattern = False
                words = []
                continue
            # The end of a simple command.
            if operator == "|" and in_pattern:
                continue
            command = None
            if words or outputs:
                command = Command(
                    line or token.line, tuple(words), tuple(outputs), stdin, source, not stack and not conditional
                )
                waiting.append((command, documents))
            words, outputs, stdin, documents, line = [], [], None, [], 0
            source = command if operator in ("|", "|&") else None
            if operator in ("&&", "||"):
                conditional = True
            elif operator not in ("|", "|&"):
                conditional = False
            if operator == ")":
                if stack:
                    stack.pop()
            elif operator in (";;", ";&", ";;&"):
                in_pattern = True
            if token.kind == "end" and operator == "\n":
                yield from self._with_documents(waiting)
                waiting = []
        yield from self._with_documents(waiting)

    def _with_documents(self, waiting: list[tuple[Command, list[int]]]) -> Iterator[Command]:
        """The commands of one line, with the text of the documents that they read, which follows the line."""
        from dataclasses import replace

        done: dict[int, Command] = {}
        for command, documents in waiting:
            texts = [self._read.pop(0) for _ in documents if self._read]
            changed = replace(command, stdin=texts[-1]) if texts else command
            if command.source is not None:
                changed = replace(changed, source=done.get(id(command.source), command.source))
            done[id(command)] = changed
            yield changed

    def _tokens(self) -> Iterator[_Token]:
        text, size = self._text, len(self._text)
        glued = False
        while self._at < size:
            char = text[self._at]
            if char == "\\" and text.startswith("\\\n", self._at):
                self._at += 2
                self._line += 1
                continue
            if char in " \t":
                self._at += 1
                glued = False
                continue
            if char == "#" and not glued:
                end = text.find("\n", self._at)
                self._at = size if end < 0 else end
                continue
            if char == "\n":
                self._at += 1
                line = self._line
                self._line += 1
                if self._documents:
                    self._read += [self._document(*document) for document in self._documents]
                    self._documents = []
                yield _Token("end", "\n", line)
                glued = False
                continue
            operator = next((one for one in _OPERATORS if text.startswith(one, self._at)), None)
            if operator:
                self._at += len(operator)
                if operator in ("<<", "<<-"):
                    self._begin_document(operator == "<<-")
                yield _Token("operator", operator, self._line, glued=glued)
                glued = False
                continue
            line, start = self._line, self._at
            word = self._word()
            if self._at == start:
                self._at += 1
                continue
            quoted = any(mark in text[start : self._at] for mark in "'\"\\")
            yield _Token("word", "" if quoted else word.text, line, word)
            glued = True
        yield _Token("end", "\n", self._line)

    def _begin_document(self, stripped: bool) -> None:
        while self._text.startswith((" ", "\t"), self._at):
            self._at += 1
        start = self._at
        delimiter = self._word()
        quoted = any(mark in self._text[start : self._at] for mark in "'\"\\")
        self._documents.append((delimiter.text, stripped, quoted))

    def _document(self, delimiter: str, stripped: bool, quoted: bool) -> Word:
        lines = []
        while self._at < len(self._text):
            end = self._text.find("\n", self._at)
            end = len(self._text) if end < 0 else end
            line = self._text[self._at : end]
            self._at = end + 1
            self._line += 1
            if (line.lstrip("\t") if stripped else line) == delimiter:
                break
            lines.append(line)
        text = "\n".join(lines)
        return Word(text, quoted or not re.search(r"[$`]", text))

    def _word(self) -> Word:
        text, size = self._text, len(self._text)
        parts: list[str] = []
        literal = True
        while self._at < size:
            char = text[self._at]
            if char in " \t\n;&|()<>":
                break
            if char == "'":
                end = text.find("'", self._at + 1)
                end = size if end < 0 else end
                parts.append(text[self._at + 1 : end])
                self._line += parts[-1].count("\n")
                self._at = end + 1
            elif char == '"':
                literal = self._double_quoted(parts) and literal
            elif char == "\\":
                parts.append("" if text.startswith("\\\n", self._at) else text[self._at + 1 : self._at + 2])
                self._line += text.startswith("\\\n", self._at)
                self._at += 2
            elif char in "$`":
                if text.startswith(("$'", '$"'), self._at):
                    self._at += 1
                    continue
                literal = self._expansion(parts) and literal
            else:
                if char in "*?[{":
                    literal = False
                parts.append(char)
                self._at += 1
        return Word("".join(parts), literal)

    def _double_quoted(self, parts: list[str]) -> bool:
        text, size, literal = self._text, len(self._text), True
        self._at += 1
        while self._at < size and text[self._at] != '"':
            char = text[self._at]
            if char == "\\" and self._at + 1 < size and text[self._at + 1] in '"\\$`\n':
                parts.append("" if text[self._at + 1] == "\n" else text[self._at + 1])
                self._line += text[self._at + 1] == "\n"
                self._at += 2
            elif char in "$`":
                literal = self._expansion(parts) and literal
            else:
                self._line += char == "\n"
                parts.append(char)
                self._at += 1
        self._at += 1
        return literal

    def _expansion(self, parts: list[str]) -> bool:
        """What begins with a dollar or a backquote; whether it is only that character."""
        text, start = self._text, self._at
        if text[start] == "`":
            end = text.find("`", start + 1)
            self._skip_to(len(text) if end < 0 else end + 1)
        elif text.startswith("$(", start):
            self._skip_balanced("(", ")", start + 1)
        elif text.startswith("${", start):
            self._skip_balanced("{", "}", start + 1)
            name = text[start + 2 : self._at - 1]
            parts.append(f"{MARK}{name if _NAME.fullmatch(name) else ''}{MARK}")
            return False
        else:
            name = _NAME.match(text, start + 1)
            if name:
                self._at = name.end()
                parts.append(f"{MARK}{name[0]}{MARK}")
                return False
            if text[start + 1 : start + 2] not in _SPECIAL or start + 1 >= len(text):
                parts.append("$")
                self._at += 1
                return True
            self._at += 2
        parts.append(MARK + MARK)
        return False

    def _skip_balanced(self, opening: str, closing: str, at: int) -> None:
        depth = 0
        while at < len(self._text):
            char = self._text[at]
            if char == "\\":
                at += 1
            elif char == "'" and opening == "(":
                end = self._text.find("'", at + 1)
                at = len(self._text) if end < 0 else end
            elif char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if not depth:
                    self._skip_to(at + 1)
                    return
            at += 1
        self._skip_to(len(self._text))

    def _skip_to(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = min(at, len(self._text))
