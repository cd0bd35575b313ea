"""Exact comparison of expressions made of numbers: sums, products, quotients, powers, factorials, binomials.

Values are fractions while they fit in ``MAX_BITS`` bits. Beyond that, two expressions are compared modulo two large
primes: different residues prove that the values differ, and equal residues of different values have a probability of
about 2**-250. No value is ever rounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

MAX_BITS = 20_000
"""Of a numerator or denominator. Arithmetic on numbers of this size takes less than a millisecond."""
_MAX_TOKENS = 500
_MAX_NESTING = 50
_MAX_DIGITS = 4000
"""Of one written number. Python refuses to read more than 4300 digits."""
_MAX_FACTORIAL_MODULO = 200_000
"""A factorial modulo a prime takes one multiplication for each number up to it: here some 40 ms."""
_PRIMES = (31415926535897932384626433832795045243, 27182818284590452353602874713526630119)
"""Safe primes (half of p - 1 is prime too), so that powers repeat only after p - 1 or (p - 1) / 2 steps."""


def same_number(ours: str, theirs: str) -> bool | None:
    """Whether two expressions of numbers have the same value, or None where one of them is anything else.

    Decimals are exact in an expression. One that stands alone may be rounded: unless it is equal, the result is None.
    Division by zero, a power whose exponent is no whole number and an expression that is ambiguous are "anything else".
    """
    try:
        a, b = _Parser(ours).parse(), _Parser(theirs).parse()
        known: _Known = {}
        try:
            equal = _exact(a, known) == _exact(b, known)
        except _TooLarge:
            equal = all(_residue(a, prime, known) == _residue(b, prime, known) for prime in _PRIMES)
        return equal or (None if _is_decimal(a) or _is_decimal(b) else False)
    except (_NotANumber, _TooLarge):
        return None


class _NotANumber(Exception):
    """The text is no expression of numbers, or it has no value."""


class _TooLarge(Exception):
    """A value does not fit the bound."""


# --- Reading ---------------------------------------------------------------------------------------------------------

_Tree = int | Fraction | tuple["str", "_Tree"] | tuple[str, "_Tree", "_Tree"]
"""A whole number, a decimal, or an operation and its operands."""

_TOKEN = re.compile(
    r"(?:\d+\.\d+|\.\d+)(?![\d.])|\d+(?!\.\d)|[-+*/^!(){}]|\\[dtc]?frac(?![a-zA-Z])|\\(?:[dt]?binom|choose|over|cdot|times|ast|div|left|right)(?![a-zA-Z])"
)
_SKIPPED = re.compile(r"(?:\s|\\[,;:! ]|~|\\left(?![a-zA-Z])|\\right(?![a-zA-Z]))*")
_PRODUCTS = {"*": "*", "\\cdot": "*", "\\times": "*", "\\ast": "*", "/": "/", "\\div": "/"}
_INFIX_IN_BRACES = {"\\choose": "choose", "\\over": "/"}


class _Parser:
    """A recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        place, depth = _end(_SKIPPED, text, 0), 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if not found:
                raise _NotANumber
            self.tokens.append(found.group())
            place = _end(_SKIPPED, text, found.end())
            depth += (found.group() in "({") - (found.group() in ")}")
            if depth > _MAX_NESTING or len(self.tokens) > _MAX_TOKENS:
                raise _NotANumber
        self.place = 0

    def parse(self) -> _Tree:
        tree = self._sum()
        if self._next() is not None:
            raise _NotANumber
        return tree

    def _next(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def _take(self) -> str:
        if self.place >= len(self.tokens):
            raise _NotANumber
        self.place += 1
        return self.tokens[self.place - 1]

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _NotANumber

    def _sum(self) -> _Tree:
        tree = self._signed_product()
        while self._next() in ("+", "-"):
            sign, right = self._take(), self._signed_product()
            tree = (sign, tree, right)
        return tree

    def _signed_product(self) -> _Tree:
        negative = False
        while self._next() in ("+", "-"):
            negative ^= self._take() == "-"
        tree = self._product()
        return ("neg", tree) if negative else tree

    def _product(self) -> _Tree:
        tree = self._power()
        divided = False
        while (token := self._next()) is not None:
            if token in _PRODUCTS:
                operation = _PRODUCTS[self._take()]
                divided |= operation == "/"
                negative = self._next() == "-" and self._take() == "-"
                right = self._power()
                tree = (operation, tree, ("neg", right) if negative else right)
            elif self._begins_a_factor(token):
                if divided:
                    raise _NotANumber  # 1/2(3) is read in two ways
                tree = ("*", tree, self._power())
            else:
                break
        return tree

    def _begins_a_factor(self, token: str) -> bool:
        """Whether ``token``, without an operator before it, multiplies what stands before it.

        A number or fraction directly after a number does not: these are mixed numbers, or digits with a space between.
        """
        if token == "(" or "binom" in token:
            return True
        before = self.tokens[self.place - 1]
        return before in (")", "}", "!") if "frac" in token else before == ")" and token[0] in "0123456789."

    def _power(self) -> _Tree:
        tree = self._with_factorial(self._atom())
        if self._next() != "^":
            return tree
        self._take()
        negative = self._next() == "-" and self._take() == "-"
        exponent = self._atom()
        if self._next() in ("^", "!"):
            raise _NotANumber  # a^b^c and a^b! are read in two ways
        return ("^", tree, ("neg", exponent) if negative else exponent)

    def _with_factorial(self, tree: _Tree) -> _Tree:
        if self._next() != "!":
            return tree
        self._take()
        if self._next() == "!":
            raise _NotANumber  # a double factorial
        return ("!", tree)

    def _atom(self) -> _Tree:
        token = self._take()
        if token.isdigit():
            if len(token) > _MAX_DIGITS or (token[0] == "0" and len(token) > 1 and len(self.tokens) > 1):
                raise _NotANumber  # 2024-01-15 is a date
            return int(token)
        if "." in token:
            if len(token) > _MAX_DIGITS:
                raise _NotANumber
            return Fraction(token)
        if token == "(":
            tree = self._sum()
            self._expect(")")
            return tree
        if token == "{":
            return self._braced()
        if "frac" in token or "binom" in token:
            top, bottom = self._argument(), self._argument()
            return ("/" if "frac" in token else "choose", top, bottom)
        raise _NotANumber

    def _braced(self) -> _Tree:
        """``{a}``, ``{a \\over b}`` or ``{a \\choose b}``, whose first brace is read already."""
        tree = self._sum()
        if (operation := _INFIX_IN_BRACES.get(self._next() or "")) is not None:
            self._take()
            tree = (operation, tree, self._sum())
        self._expect("}")
        return tree

    def _argument(self) -> _Tree:
        """An argument of a LaTeX command: a group in braces, or a single digit (``\\frac12``)."""
        token = self._take()
        if token == "{":
            return self._braced()
        if not token.isdigit():
            raise _NotANumber
        if len(token) > 1:  # the other digits belong to what follows
            self.place -= 1
            self.tokens[self.place] = token[1:]
        return int(token[0])


def _is_decimal(tree: _Tree) -> bool:
    """Whether ``tree`` is a decimal, with a sign or a power of ten (0.5, -0.5, 5.1 times 10^3) or without."""
    if not isinstance(tree, tuple):
        return isinstance(tree, Fraction)
    if tree[0] == "neg":
        return _is_decimal(tree[1])
    if tree[0] == "*" and len(tree) == 3:
        scale = tree[2]
        return _is_decimal(tree[1]) and isinstance(scale, tuple) and scale[0] == "^" and scale[1] == 10
    return False


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


# --- Exact values ----------------------------------------------------------------------------------------------------


_Known = dict[int, Fraction | None]
"""Exact values by the identity of their tree, None for those beyond the bound: each is computed once."""


def _exact(tree: _Tree, known: _Known) -> Fraction:
    """Raises _TooLarge before a value beyond the bound is made, and _NotANumber where there is no value."""
    if not isinstance(tree, tuple):
        return _bounded(Fraction(tree))
    if id(tree) not in known:
        known[id(tree)] = None
        first = _exact(tree[1], known)
        value = _EXACT[tree[0]](first, _exact(tree[2], known)) if len(tree) == 3 else _EXACT[tree[0]](first)
        known[id(tree)] = _bounded(value)
    value_or_none = known[id(tree)]
    if value_or_none is None:
        raise _TooLarge
    return value_or_none


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise _TooLarge
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise _NotANumber
    return value.numerator


def _divide(top: Fraction, bottom: Fraction) -> Fraction:
    if bottom == 0:
        raise _NotANumber
    return top / bottom


def _raise(base: Fraction, exponent: Fraction) -> Fraction:
    power = _whole(exponent)
    if base == 0 and power <= 0:
        raise _NotANumber
    if abs(base) in (0, 1):
        return base ** (power % 2 if power % 2 else 2)
    # A number of b bits is at least 2**(b - 1), so its n-th power has more than n (b - 1) bits.
    if abs(power) * max(_bits(base) - 1, 1) > MAX_BITS:
        raise _TooLarge
    return base**power


def _factorial(value: Fraction) -> Fraction:
    number = _whole(value)
    if number < 0:
        raise _NotANumber
    if number * math.log2(number + 1) > 2 * MAX_BITS:
        raise _TooLarge
    return Fraction(math.factorial(number))


def _choose(top: Fraction, bottom: Fraction) -> Fraction:
    n, k = _whole(top), _whole(bottom)
    if not 0 <= k <= n:
        raise _NotANumber
    k = min(k, n - k)
    if k * n.bit_length() > 4 * MAX_BITS:
        raise _TooLarge
    return Fraction(math.comb(n, k))


_EXACT: dict[str, Callable[..., Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "neg": lambda a: -a,
    "^": _raise,
    "!": _factorial,
    "choose": _choose,
}


# --- Residues --------------------------------------------------------------------------------------------------------


def _residue(tree: _Tree, prime: int, known: _Known) -> int:
    """The value modulo ``prime``. Raises _TooLarge where an exponent, or what a factorial is taken of, is too large."""
    try:
        value = _exact(tree, known)
        return value.numerator * _inverse(value.denominator, prime) % prime
    except _TooLarge:
        if not isinstance(tree, tuple):
            return tree.numerator * _inverse(tree.denominator, prime) % prime
    operation = tree[0]
    if operation == "!":
        return _factorial_residue(_whole(_exact(tree[1], known)), prime)
    if operation == "neg":
        return -_residue(tree[1], prime, known) % prime
    assert len(tree) == 3
    if operation == "choose":
        n, k = _whole(_exact(tree[1], known)), _whole(_exact(tree[2], known))
        below = _factorial_residue(k, prime) * _factorial_residue(n - k, prime)
        return _factorial_residue(n, prime) * _inverse(below, prime) % prime
    first = _residue(tree[1], prime, known)
    if operation == "^":
        exponent = _whole(_exact(tree[2], known))
        return pow(first if exponent >= 0 else _inverse(first, prime), abs(exponent), prime)
    second = _residue(tree[2], prime, known)
    if operation == "/":
        second = _inverse(second, prime)
    return {"+": first + second, "-": first - second}.get(operation, first * second) % prime


def _inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise _NotANumber  # the divisor is zero, or is a multiple of the prime, which is as good as impossible
    return pow(value, -1, prime)


def _factorial_residue(number: int, prime: int) -> int:
    if number > _MAX_FACTORIAL_MODULO:
        raise _TooLarge
    if number < 0:
        raise _NotANumber
    product = 1
    for factor in range(2, number + 1):
        product = product * factor % prime
    return product
