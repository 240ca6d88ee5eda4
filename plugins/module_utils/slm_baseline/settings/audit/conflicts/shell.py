"""Shell text parsed into simple commands, as far as needed to see who writes which file: sh(1), POSIX and bash.

Nothing is run. The results of expansions are unknown here; a command in a condition, a loop, a function or behind
`&&` may never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

MARK = "\x00"
"""Surrounds the placeholder of an expansion in a word's text: a variable's name, the text of a command in brackets, or
nothing for any other."""

_OPERATORS = (
    ";;&", "&>>", "<<<", "<<-", ";;", ";&", "&&", "||", "|&", "&>", "<<", ">>", ">|", ">&", "<&", "<>",
    ";", "&", "|", "(", ")", "<", ">",
)  # fmt: skip
_REDIRECTING = frozenset((">", ">>", ">|", "&>", "&>>", "<", "<<<", "<>", ">&", "<&"))
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
    """A simple command: its words, where its output goes, and its input, `stdin` where that is text in the script.

    `plain` means that it runs unconditionally.
    """

    line: int
    words: tuple[Word, ...]
    outputs: tuple[Word, ...] = ()
    stdin: Word | None = None
    source: Command | None = field(default=None, repr=False)
    plain: bool = True


def parse_shell(text: str, first_line: int = 1) -> list[Command]:
    """Return every simple command of a script, in order; what cannot be parsed is skipped."""
    lexer = _Lexer(text, first_line)
    assembler = _Assembler()
    commands = []
    for token in lexer.tokens():
        assembler.take(token)
        if token.kind == "end":
            commands += assembler.give(lexer.documents)
            lexer.documents = []
    return commands


@dataclass
class _Token:
    """A word, an operator, or the end of a line. `text` is "" for a quoted word, which is no keyword.

    `glued` means that it follows a word without a blank.
    """

    kind: str
    text: str
    line: int
    word: Word = Word("")
    glued: bool = False


@dataclass
class _Draft:
    """A simple command that is still incomplete, and how many here-documents it reads."""

    line: int = 0
    words: list[Word] = field(default_factory=list)
    outputs: list[Word] = field(default_factory=list)
    stdin: Word | None = None
    documents: int = 0


class _Assembler:
    """Combines tokens into commands, and tracks the compound commands around them."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._draft = _Draft()
        self._redirect = ""
        self._in_pattern = False
        self._conditional = False
        self._source: Command | None = None
        self._complete: list[tuple[Command, int]] = []

    def take(self, token: _Token) -> None:
        """Process the next token."""
        redirect, self._redirect = self._redirect, ""
        if token.kind != "word":
            self._operator(token)
        elif redirect:
            self._redirected(redirect, token.word)
        elif self._draft.words or not self._keyword(token):
            self._word(token)

    def give(self, documents: list[Word]) -> list[Command]:
        """Return the commands of the line that ends here, with the text of the here-documents that follow it."""
        read: dict[int, Command] = {}
        texts = list(documents)
        for command, count in self._complete:
            own, texts = texts[:count], texts[count:]
            source = read.get(id(command.source), command.source)
            read[id(command)] = replace(command, stdin=own[-1] if own else command.stdin, source=source)
        self._complete = []
        return list(read.values())

    def _redirected(self, redirect: str, word: Word) -> None:
        if redirect in (">", ">>", ">|", "&>", "&>>"):
            self._draft.outputs.append(word)
        elif redirect == "<<<":
            self._draft.stdin = word

    def _keyword(self, token: _Token) -> bool:
        """Return whether a word in command position is not a command but part of a compound one; process it."""
        text = token.text
        if self._in_pattern:
            if text == "esac":
                self._leave()
                self._in_pattern = False
            return True
        if text in ("for", "select", "case"):
            self._enter(text)
            return False
        if text in _OPENING or text == "function":
            self._enter(text)
        elif text in _CLOSING:
            self._leave()
        return text in _OPENING or text in _CLOSING or text in _BETWEEN or text == "function"

    def _word(self, token: _Token) -> None:
        draft = self._draft
        if draft.words and draft.words[0].text == "case" and token.text == "in" and self._stack[-1:] == ["case"]:
            self._draft, self._in_pattern = _Draft(), True
            return
        draft.line = draft.line or token.line
        draft.words.append(token.word)

    def _operator(self, token: _Token) -> None:
        operator, draft = token.text, self._draft
        if operator in ("<<", "<<-"):
            draft.documents += 1
        elif operator in _REDIRECTING:
            self._redirect = operator
            # The redirected descriptor is directly in front: stderr is not what a command prints.
            if token.glued and draft.words and draft.words[-1].text.isdigit() and draft.words.pop().text != "1":
                self._redirect = "other"
        elif self._in_pattern and operator in ("|", ")", "("):
            self._in_pattern = operator != ")"
        elif operator == "(":
            if draft.words and token.glued:
                # The name of a function or array: no command.
                self._draft = _Draft()
            self._enter("(")
        else:
            self._finish(token)

    def _finish(self, token: _Token) -> None:
        """End a simple command, and possibly the compound command around it."""
        operator, draft = token.text, self._draft
        command = None
        if draft.words or draft.outputs:
            plain = not self._stack and not self._conditional
            words, outputs = tuple(draft.words), tuple(draft.outputs)
            command = Command(draft.line or token.line, words, outputs, draft.stdin, self._source, plain)
            self._complete.append((command, draft.documents))
        self._draft = _Draft()
        is_pipe = operator in ("|", "|&")
        self._source = command if is_pipe else None
        self._conditional = operator in ("&&", "||") or (is_pipe and self._conditional)
        if operator == ")":
            self._leave()
        elif operator in (";;", ";&", ";;&"):
            self._in_pattern = True

    def _enter(self, name: str) -> None:
        if len(self._stack) < _DEEPEST:
            self._stack.append(name)

    def _leave(self) -> None:
        if self._stack:
            self._stack.pop()


class _Lexer:
    """Splits a text into tokens. `documents` are the here-documents that follow the last line."""

    def __init__(self, text: str, first_line: int) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = first_line
        self._expected: list[tuple[str, bool, bool]] = []
        self.documents: list[Word] = []

    def tokens(self) -> Iterator[_Token]:
        """Yield words, operators and ends of lines."""
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
                self.documents += [self._document(*one) for one in self._expected]
                self._expected = []
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
        self._expected.append((delimiter.text, stripped, quoted))

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
        """Read what begins with a dollar or a backquote; return whether it is only that character."""
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
            match = _NAME.match(text, start + 1)
            if match:
                self._at = match.end()
                parts.append(f"{MARK}{match[0]}{MARK}")
                return False
            if text[start + 1 : start + 2] not in _SPECIAL or start + 1 >= len(text):
                parts.append("$")
                self._at += 1
                return True
            self._at += 2
        text = self._text[start : self._at].strip("`$")
        parts.append(f"{MARK}({text.replace(MARK, '')}){MARK}" if len(text) > 1 else MARK + MARK)
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
