"""Whether two expressions that math-verify calls equal have different values after all.

math-verify compares 15 digits and takes intermediate results below 1e-15 for zero, so that it calls 2**-99 and 2**-98
equal, and sqrt(10**40 + 1) and 10**20. Here exact expressions are evaluated with as many digits as their numbers need.
Only the last resort of ``rewards.math`` imports this: sympy takes a third of a second to load.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import sympy

_MAX_DIGITS = 20_000
_UNFINISHED = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)
"""Evaluated numerically, these give no error bound that could be relied on."""
_LIKE_EXPONENTIALS = (sympy.exp, sympy.factorial, sympy.functions.elementary.hyperbolic.HyperbolicFunction)
"""Their values are as long as their arguments are large: tanh(100) and 1 agree in 86 digits."""
_WITHOUT_VALUE = (sympy.oo, -sympy.oo, sympy.zoo, sympy.nan, sympy.AccumBounds)
"""Infinities, 0/0 and bounds such as those of sin(oo): no difference of these is zero."""
_MOST_SYMBOLS = 4
_MOST_POINTS, _ENOUGH_POINTS, _LEAST_POINTS = 64, 24, 4
"""Points at which two functions are compared: tried at most, enough where both are real, and least where they are."""


def differ(gold: Any, prediction: Any) -> bool:
    """Whether the two, as math-verify parses them, differ in a number, in an element or in a value at a point.

    Raises what sympy raises for expressions that cannot be evaluated.
    """
    gold, prediction = _right_side(gold), _right_side(prediction)
    if isinstance(gold, sympy.core.relational.Relational) and type(gold) is type(prediction):
        return gold.lhs == prediction.lhs and differ(gold.rhs, prediction.rhs)
    ours, theirs = _parts(gold), _parts(prediction)
    if ours is not None and theirs is not None and len(ours) == len(theirs):
        if isinstance(gold, sympy.FiniteSet) and isinstance(prediction, sympy.FiniteSet):
            return not (_all_found(ours, theirs) and _all_found(theirs, ours))
        return any(differ(a, b) for a, b in zip(ours, theirs, strict=True))
    if not (isinstance(gold, sympy.Expr) and isinstance(prediction, sympy.Expr)):
        return False
    if _has_no_value(gold) != _has_no_value(prediction):
        return True
    if gold.is_number and prediction.is_number:
        if gold.has(sympy.Float) or prediction.has(sympy.Float):
            return _rounded_differ(gold, prediction)
        return all(is_nonzero(a - b) for a, b in product(_readings(gold), _readings(prediction)))
    return _functions_differ(gold, prediction)


def are_far_apart(gold: Any, prediction: Any) -> bool:
    """Whether both are exact real numbers and differ by more than a millionth. False says nothing.

    Cheap: each number is evaluated once, to 15 digits. So most elements of two lists are told apart.
    """
    if not (isinstance(gold, sympy.Expr) and isinstance(prediction, sympy.Expr)):
        return False
    a, b = _approximation(gold), _approximation(prediction)
    return a is not None and b is not None and abs(a - b) > 1e-6 * max(abs(a), abs(b))


@functools.lru_cache(maxsize=1024)
def _approximation(expression: Any) -> float | None:
    """The value of an exact number; None for roots of negative numbers, which may be read as real or as complex."""
    if not expression.is_number or expression.has(
        sympy.Float, sympy.UnevaluatedExpr, sympy.core.function.AppliedUndef, *_WITHOUT_VALUE, *_UNFINISHED
    ):
        return None
    if any(not root.exp.is_Integer and not root.base.is_nonnegative for root in expression.atoms(sympy.Pow)):
        return None
    value = expression.evalf(15)
    # A precision of one bit marks a value none of whose digits evalf can guarantee.
    return float(value) if value.is_Rational or (value.is_Float and value._prec > 1) else None


def is_nonzero(difference: Any) -> bool:
    """Whether an exact number (one without floats) is proven to differ from zero.

    An algebraic number that is not zero cannot be smaller than a bound given by the sizes of its integers and the
    degrees of its roots. Where that bound needs more than ``_MAX_DIGITS`` digits, a difference that cannot be
    simplified to zero counts as proven: a wrong answer accepted costs more than a right one of such a size refused.
    """
    if difference.has(*_UNFINISHED):
        difference = difference.doit()
        if difference.has(*_UNFINISHED):
            return False
    needed = _digits_needed(difference)
    digits = int(min(needed, _MAX_DIGITS))
    value = difference.evalf(2, maxn=digits)
    if value == 0:  # evalf rounds arguments to the digits asked for, so that log(1 + 10**-20) becomes log(1)
        value = difference.evalf(digits, maxn=digits)
    # Digits that evalf cannot guarantee lower the precision of its result to one bit.
    if any(part.is_Float and part != 0 and part._prec > 1 for part in value.as_real_imag()):
        return True
    return needed > _MAX_DIGITS and sympy.simplify(difference) != 0


def is_zero_function(difference: Any) -> bool:
    """Whether an expression without floats is zero, as a number or for all positive values of its symbols."""
    if difference.has(sympy.log):
        difference = sympy.expand_log(difference, force=True)
    if difference.is_number:
        return not difference.has(sympy.Float) and is_zero(difference)
    return not _has_no_value(difference) and bool(sympy.simplify(difference) == 0)


def is_zero(difference: Any) -> bool:
    """Whether an exact number has a finite value, and that value cannot be told from zero.

    ``is_nonzero`` proves nothing about sin(oo), 0/0, f(2) and integrals that cannot be done. These are not zero either.
    """
    if difference.has(*_UNFINISHED):
        difference = difference.doit()
    if difference.has(*_WITHOUT_VALUE, *_UNFINISHED, sympy.core.function.AppliedUndef):
        return False
    parts = difference.evalf(15).as_real_imag()
    return all(part.is_Float or part == 0 for part in parts) and not is_nonzero(difference)


def _has_no_value(expression: Any) -> bool:
    """Whether an infinity or an undefined value occurs, other than as a bound of a sum, an integral or a limit."""
    return bool(expression.has(*_WITHOUT_VALUE) and not expression.has(*_UNFINISHED))


def equal_where_real(gold: Any, prediction: Any) -> bool:
    """Whether two exact numbers, or functions with roots and the like, agree wherever both are real.

    sqrt(1/n) and 1/sqrt(n) do, sqrt(x**2) and x do not: at -1 both are real. sympy proves neither without being told
    the signs, so the two are compared at points of both signs and of many sizes, with as many digits as that takes.
    Symbols that share a root with others, as in sqrt(a/b), are taken to be positive: sqrt(a*b)/b is the same then.
    """
    gold, prediction = _right_side(gold), _right_side(prediction)
    if not (isinstance(gold, sympy.Expr) and isinstance(prediction, sympy.Expr)):
        return False
    names = sorted({symbol.name for symbol in gold.free_symbols})
    if len(names) > _MOST_SYMBOLS or names != sorted({symbol.name for symbol in prediction.free_symbols}):
        return False
    if any(
        side.has(sympy.Float, sympy.UnevaluatedExpr, sympy.core.function.AppliedUndef, *_UNFINISHED)
        for side in (gold, prediction)
    ):
        return False
    if _has_no_value(gold) or _has_no_value(prediction):
        return False
    if _plain(gold) == _plain(prediction):
        return True
    agreed = 0
    exponents = {
        symbol.name
        for side in (gold, prediction)
        for power in side.atoms(sympy.Pow)
        for symbol in power.exp.free_symbols
    }
    longest = min(int(max(_digits_needed(gold), _digits_needed(prediction))), 60)
    for point in _points(names, _positive(gold) | _positive(prediction), exponents, longest):
        ours, theirs = _real_value(gold, point), _real_value(prediction, point)
        if ours is None or theirs is None:
            continue
        if not _same_real(ours, theirs):
            return False
        agreed += 1
        if agreed == _ENOUGH_POINTS or not names:
            return True
    return agreed >= _LEAST_POINTS


def _same_real(ours: Any, theirs: Any) -> bool:
    """Whether two real numbers are equal.

    Two products of roots are so where a power of their quotient is 1, which takes no digits: those that their degrees
    ask for can be tens of thousands.
    """
    if theirs.is_zero is False:
        quotient = ours / theirs
        exponents = [exponent for exponent in quotient.as_powers_dict().values() if exponent.is_Rational]
        power = quotient ** math.lcm(*(int(exponent.q) for exponent in exponents))
        if power.is_Rational:
            return power == 1 and bool((ours.evalf(15) > 0) == (theirs.evalf(15) > 0))
    return is_zero(ours - theirs)


def _positive(expression: Any) -> set[str]:
    """Names of the symbols of odd power in a product of two or more under an even root."""
    found: set[str] = set()
    for root in expression.atoms(sympy.Pow):
        if root.exp.is_Rational and root.exp.q % 2 == 0:
            top, bottom = sympy.together(root.base).as_numer_denom()
            coefficient, powers = sympy.expand(top * bottom).as_coeff_Mul()  # of the same sign as the quotient
            odd = {base.name for base, power in powers.as_powers_dict().items() if base.is_Symbol and power.is_odd}
            if coefficient.is_positive and len(odd) > 1:
                found |= odd
    return found


def _plain(expression: Any) -> Any:
    """The expression with symbols that are told apart by their names alone."""
    return expression.xreplace({symbol: sympy.Symbol(symbol.name) for symbol in expression.free_symbols})


def _points(names: list[str], positive: set[str], exponents: set[str], longest: int) -> Iterator[dict[str, Any]]:
    """Every combination of signs in turn, each time with other sizes: most from 1/100 to 1000, some far larger.

    Symbols in ``exponents`` are small whole numbers: a power of 10^60 by 10^60 cannot be computed.
    """
    chance = random.Random(0)
    signs = list(product(*((1,) if name in positive else (1, -1) for name in names)))
    for _ in range(max(_MOST_POINTS // len(signs), 2)):
        for some in signs:
            yield {
                name: sign
                * (sympy.Integer(chance.randint(1, 12)) if name in exponents else _size_of_any(chance, longest))
                for name, sign in zip(names, some, strict=True)
            }


def _size_of_any(chance: random.Random, longest: int) -> Any:
    power = chance.randint(-2, chance.choice((2, 3, longest)))
    return sympy.Rational(chance.randint(1, 97), 101) * sympy.Integer(10) ** power


def _real_value(expression: Any, point: dict[str, Any]) -> Any:
    """The value at a point, an odd root of a negative number being negative; None where a part of it is not real."""
    if isinstance(expression, sympy.Symbol):
        return point[expression.name]
    if not expression.args:
        return expression
    arguments: list[Any] = [_real_value(argument, point) for argument in expression.args]
    if any(argument is None for argument in arguments):
        return None
    value = _real_power(*arguments) if expression.is_Pow else expression.func(*arguments)
    return None if value is None or value.is_extended_real is False or value.is_finite is False else value


def _real_power(base: Any, exponent: Any) -> Any:
    if exponent.is_Integer:
        return base**exponent
    size = base if base.is_Rational else base.evalf(15)
    if not (size.is_Rational or size.is_Float) or size == 0:
        return None
    if size > 0:
        return base**exponent
    odd_root = exponent.is_Rational and exponent.q % 2
    return (-1) ** int(exponent.p) * (-base) ** exponent if odd_root else None


def _right_side(expression: Any) -> Any:
    """5 for ``x = 5``."""
    if isinstance(expression, sympy.Eq) and isinstance(expression.lhs, sympy.Symbol):
        return expression.rhs
    return expression


def _parts(expression: Any) -> list[Any] | None:
    if isinstance(expression, sympy.FiniteSet | sympy.Tuple):
        return list(getattr(expression, "_unsorted_args", expression.args))
    if isinstance(expression, sympy.Interval):
        return [expression.start, expression.end]
    return list(expression) if isinstance(expression, sympy.MatrixBase) else None


def _all_found(wanted: list[Any], among: list[Any]) -> bool:
    return all(any(not differ(one, other) for other in among) for one in wanted)


def _readings(number: Any) -> list[Any]:
    """The value, and for a percentage also the number before the sign: math-verify takes 10% for 10 and for 0.1."""
    hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    if not number.has(sympy.UnevaluatedExpr):
        return [number]
    return [number.doit(), *([number.xreplace({hundredth: sympy.Integer(1)})] if number.has(hundredth) else [])]


def _rounded_differ(gold: Any, prediction: Any) -> bool:
    """Six decimal places, or 15 digits, agree for math-verify. Three digits must agree in any case."""

    def apart(a: Any, b: Any) -> bool:
        a, b = a.evalf(20), b.evalf(20)
        return bool(sympy.Abs(a - b) > max(sympy.Abs(a), sympy.Abs(b)) * sympy.Float("1e-3"))

    return all(apart(a, b) for a, b in product(_readings(gold), _readings(prediction)))


def _functions_differ(gold: Any, prediction: Any) -> bool:
    """Whether two exact functions of the same symbols have different values at one point."""
    names = {symbol.name for symbol in gold.free_symbols}
    if names != {symbol.name for symbol in prediction.free_symbols}:
        return False
    difference = gold - prediction
    if difference.has(sympy.Float, sympy.UnevaluatedExpr, sympy.core.function.AppliedUndef):
        return False
    # math-verify gives symbols of one name different assumptions, so they are replaced by name.
    points = {name: sympy.Rational(7 + 4 * number, 5) for number, name in enumerate(sorted(names))}
    return is_nonzero(difference.xreplace({symbol: points[symbol.name] for symbol in difference.free_symbols}))


def _digits_needed(expression: Any) -> float:
    """How many digits tell ``expression`` from zero: the digits of its numbers, times the degree of its roots."""
    digits, degree = 30.0, 1
    for node in sympy.preorder_traversal(expression):
        if node.is_Rational:
            digits += _length(node)
        elif node.is_Pow and node.exp.is_Integer:
            digits += abs(int(node.exp)) * _size(node.base)
        elif node.is_Pow and node.exp.is_Rational:
            degree *= int(node.exp.q)
        elif isinstance(node, _LIKE_EXPONENTIALS) and node.args[0].is_number:
            size = abs(complex(node.args[0].evalf(5)))
            digits += size * max(math.log10(size + 1), 1)
    return digits * min(degree, 1000)


def _size(expression: Any) -> float:
    return sum(_length(number) for number in expression.atoms(sympy.Rational)) or 1.0


def _length(number: Any) -> float:
    return 0.302 * (int(number.p).bit_length() + int(number.q).bit_length())
