r"""Functions and constants as models write them, in the commands that math-verify reads.

Some are ``exp(-2)``, ``arcsin(1/3)``, ``\mathrm{sinh} 1``, ``sqrt(1+sqrt(2))``, ``log2(8)`` and ``\mathrm{e}``.
math-verify takes a plain name for a product of letters and leaves out a command that it does not know, so that
``\operatorname{sech} 2`` would be 2. A name without an argument stays the word that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMMANDS = {
    **{name: name for name in "sin cos tan cot sec csc sinh cosh tanh ln log exp max min gcd lcm".split()},
    **{f"arc{name}": f"arc{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{f"a{name}": f"arc{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{f"ar{name}": f"arc{name}" for name in "sinh cosh tanh".split()},
    "tg": "tan", "ctg": "cot", "cotg": "cot", "cosec": "csc", "arctg": "arctan", "arcctg": "arccot", "lg": "log_{10}",
    "log10": "log_{10}", "log2": "log_{2}",
}  # fmt: skip
_AROUND = {
    "sqrt": ("\\sqrt{", "}"), "cbrt": ("\\sqrt[3]{", "}"), "abs": ("\\left|", "\\right|"),
    "floor": ("\\lfloor ", "\\rfloor "), "ceil": ("\\lceil ", "\\rceil "), "ceiling": ("\\lceil ", "\\rceil "),
    **{f"{prefix}coth": ("\\arctanh(\\frac{1}{", "})") for prefix in ("arc", "ar", "a")},
    **{f"{prefix}sech": ("\\arccosh(\\frac{1}{", "})") for prefix in ("arc", "ar", "a")},
    **{f"{prefix}csch": ("\\arcsinh(\\frac{1}{", "})") for prefix in ("arc", "ar", "a")},
    "coth": ("\\frac{1}{\\tanh(", ")}"), "sech": ("\\frac{1}{\\cosh(", ")}"), "csch": ("\\frac{1}{\\sinh(", ")}"),
}  # fmt: skip
"""Functions that are written around their argument."""
NAMES = frozenset((*_COMMANDS, *_AROUND))
_ALSO_UNITS = frozenset(("sec", "min"))
_CALLED = frozenset("exp max min gcd lcm log2 log10 abs floor ceil ceiling lg".split())
"""Plain, these are functions only before a bracket: "min" is a unit, "floor 3" is a place."""
_MOST_CALLS = 60


def _any(names: Iterable[str]) -> str:
    return "|".join(sorted(names, key=len, reverse=True))


_OPENING = r"(?:\\left\s*)?\("
_COMMAND = r"\\(?!text|math|operatorname|quad|left\s*\[)[a-zA-Z]"
_ARGUMENT = rf"(?:{_OPENING}|\{{|\^|_|\d|\||{_COMMAND}|(?<= )[a-zA-Z](?![a-zA-Z]))"
_DRESSED = re.compile(
    rf"\\(?:mathrm|operatorname\*?|text|textrm|mathsf|mathop)\s*\{{\s*({_any(NAMES)})\s*\}}(?=(?:\s|\\[,;:! ])*(\S))"
)
_UNKNOWN_OPERATOR = re.compile(r"\\operatorname\*?\s*\{")
_CONSTANT = re.compile(
    r"\\(?:mathrm|operatorname|text|textrm|mathsf|mathnormal|mathit)\s*\{\s*([ei]|\\pi)\s*\}|\\uppi(?![a-z])"
    r"|\\(?:mathrm|mathsf|mathnormal|mathit|rm)\s+([ei])(?![a-zA-Z])|(\\imath)(?![a-zA-Z])"
)
_FOREIGN = re.compile(r"\\(tg|ctg|cotg|cosec|arctg|arcctg|lg|arcsinh|arsinh|arcosh|artanh)(?![a-zA-Z])")
_BOUNDARY = r"(?:(?<![a-zA-Z\\])|(?<=(?<![a-zA-Z\\])[xyzt]))"
_PLAIN = re.compile(
    rf"{_BOUNDARY}(?:(?P<glued>(?:arc)?(?:sin|cos|tan)|ln)(?=x(?![a-zA-Z]))"
    rf"|(?P<name>{_any(NAMES)})(?=(?P<gap> *)(?P<next>{_ARGUMENT})))"
)
_PLAIN_ROOT = re.compile(rf"{_BOUNDARY}sqrt(?=\s*(?:\{{|\[[^\[\]]*\]\s*\{{))")
_IN_OTHER_BRACKETS = re.compile(rf"(?:\\|{_BOUNDARY})(?:(exp|max|min|gcd|lcm)\s*\{{([^{{}}]*)\}}|exp\s*\[([^\[\]]*)\])")
_RECIPROCAL_POWER = re.compile(r"(?:\\|(?<![a-zA-Z\\]))(coth|sech|csch)\s*\^\s*(?:\{\s*(-?\d{1,3})\s*\}|(\d))\s*")
_RECIPROCALS = {"coth": "tanh", "sech": "cosh", "csch": "sinh"}
_AROUND_CALL = re.compile(rf"(?:\\|(?<![a-zA-Z\\]))({_any(_AROUND)})\s*{_OPENING}")
_AROUND_WORD = re.compile(rf"(?:\\(?!sqrt)|(?<![a-zA-Z\\]))({_any(_AROUND)})\s*(\d+|[a-zA-Z](?![a-zA-Z])|\\[a-z]+)")
_OF_A_SET = re.compile(r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}")
_QUOTIENT = re.compile(r"\\(ln|log)\s*(\d+)\s*/(?=\s*\\(?:ln|log)(?![a-zA-Z]))")
"""LaTeX takes all that follows for the logarithm's argument."""
_MAY_OCCUR = re.compile(rf"{_any(NAMES)}|operatorname|uppi|\{{\s*[ei]\s*\}}|\\pi|imath|\\(?:math[a-z]+|rm)\s+[ei]")


def with_commands(text: str) -> str:
    """``text`` with the names of functions as commands and upright constants as letters."""
    if not _MAY_OCCUR.search(text):
        return text
    text = _CONSTANT.sub(_constant, text)
    text = _DRESSED.sub(_undressed, text)
    text = _PLAIN_ROOT.sub(r"\\sqrt", text)
    text = _IN_OTHER_BRACKETS.sub(lambda found: f"\\{found[1] or 'exp'}({found[2] or found[3] or ''})", text)
    text = _RECIPROCAL_POWER.sub(_reciprocal_power, text)
    text = _UNKNOWN_OPERATOR.sub(r"\\mathrm{", text)
    text = _PLAIN.sub(_command, text)
    text = _FOREIGN.sub(lambda found: f"\\{_COMMANDS.get(found[1], 'arc' + found[1][2:])} ", text)
    text = _OF_A_SET.sub(r"\\\1(\2)", text)
    text = _QUOTIENT.sub(r"\\\1(\2)/", text)
    return _around_arguments(text)


def _constant(found: re.Match[str]) -> str:
    return f" {found[1] or found[2] or ('i' if found[3] else chr(92) + 'pi')} "


def _reciprocal_power(found: re.Match[str]) -> str:
    power = int(found[2] or found[3])
    if power == -1:
        return f" arc{found[1]} "
    return f"\\{_RECIPROCALS[found[1]]}^{{{-power}}} "


def _undressed(found: re.Match[str]) -> str:
    name, after = found[1], found[2]
    if name in _CALLED and not (after == "(" or found.string[found.start(2) :].startswith(("\\left", "\\{"))):
        return found[0]
    return f" {name}" if name in _AROUND else f"\\{_COMMANDS[name]} "


def _command(found: re.Match[str]) -> str:
    if found["glued"]:
        return f"\\{found['glued']} "
    name, called = found["name"], found["next"].endswith("(")
    after_number = re.search(r"\d\s*$", found.string[: found.start()]) is not None
    if name in _CALLED and not called and not (name in ("max", "min") and found["next"].startswith("\\{")):
        return found[0]
    if name in _ALSO_UNITS and after_number and not (called and not found["gap"]):
        return found[0]
    if found["next"] == "_" and name != "log":
        return found[0]
    return found[0] if name in _AROUND else f"\\{_COMMANDS[name]} "


def _around_arguments(text: str) -> str:
    r"""``\sqrt{1+\sqrt{2}}`` for ``sqrt(1+sqrt(2))``, the outer call first."""
    place = 0
    for _ in range(_MOST_CALLS):
        found = _AROUND_CALL.search(text, place)
        if not found:
            break
        end = _closing(text, found.end())
        if end is None:
            break
        before, after = _AROUND[found[1]]
        inner = text[found.end() : end]
        inner = inner.removesuffix("\\right") if found[0].count("\\left") else inner
        text = text[: found.start()] + before + inner + after + text[end + 1 :]
        place = found.start() + len(before)
    return _AROUND_WORD.sub(lambda found: found[2].join(_AROUND[found[1]]), text)


def _closing(text: str, place: int) -> int | None:
    """Where the round bracket that is open at ``place`` closes."""
    depth = 1
    for position in range(place, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return None
