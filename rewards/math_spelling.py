"""How an answer is written: one spelling for many (``standard``), a number without the words around it (``bare``)."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from rewards.math_functions import with_commands

DRESS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathbb|mathsf|mbox)\s*\{([^{}]*)\}")
"""Text and font commands, which change no meaning."""

# --- One spelling for many -------------------------------------------------------------------------------------------

_SYMBOLS = str.maketrans(
    {
        "\N{MINUS SIGN}": "-", "π": "\\pi ", "∞": "\\infty ", "∅": "\\emptyset ", "°": "^\\circ ", "×": "\\times ",
        "÷": "\\div ", "·": "\\cdot ", "⋅": "\\cdot ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ",
        "∩": "\\cap ", "±": "\\pm ", "∈": "\\in ", "≈": "\\approx ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}",
        "∖": "\\setminus ", "√": "\\sqrt ", "∛": "\\sqrt[3] ", "\N{NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ", "\u200b": "", "ⅇ": " e ", "ⅈ": " i ", "〈": "\\langle ", "〉": "\\rangle ",
        "⟨": "\\langle ", "⟩": "\\rangle ",
    }
)  # fmt: skip
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴-⁹⁺⁻⁽-ⁿ]+"), re.compile("[₀-₉]+")
_VULGAR, _WIDE = re.compile("[¼-¾⅐-⅞]"), re.compile("[！-～]")
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), right)
    for pattern, right in (
        (r"\*\*(?=[^*]+\*\*$)|(?<=.)\*\*$", ""),  # bold of Markdown
        (r"\*\*", "^"),  # power of Python
        (r"\\[bB]igg?[lrm]?(?![a-zA-Z])", ""),
        (r"\\(?:displaystyle|textstyle|quad|qquad|checkmark|large|Large|bf|rm|it)(?![a-zA-Z])", " "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"), (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\degree(?![a-zA-Z])", r"^\\circ "),
        (r"\\(?:textcolor|color)\s*\{[a-zA-Z]+\}|\\(?:underline|fbox|mathstrut)(?![a-zA-Z])", ""),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt(\[3\])? +(\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z]))", r"\\sqrt\1{\2}"),
        (r"\\sqrt(\[[^\[\]]{1,9}\])\s*(\d(?!\d)|[a-zA-Z](?![a-zA-Z])|\\pi(?![a-zA-Z]))", r"\\sqrt\1{\2}"),
        (r"\\sqrt\s*(\\pi(?![a-zA-Z]))", r"\\sqrt{\1}"),
        (r"\^\s*([a-zA-Z])(?![a-zA-Z])", r"^{\1}"),
        (r"\\(?:blacksquare|square|Box|qed)(?![a-zA-Z])\s*$", ""),
        (r"\{\s*:\s*\}|\\colon(?![a-zA-Z])", ":"),
        (
            r"^\\\{\s*[a-zA-Z]\s*(?:\\in\s*(?:\\mathbb\s*\{\s*R\s*\}|\\R(?![a-zA-Z]))\s*)?(?:\\mid|\\vert|\||:)\s*(.+)\\\}$",
            r"\1",
        ),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?i)^(?:\\text\s*\{)?\s*no (?:real )?solutions?\s*\}?$", r"\\emptyset "),
        (r"(?i)^(?:\\text\s*\{)?\s*(?:positive )?infinity\s*\}?$", r"\\infty "),
        (r"\\log_\{?e\}?", r"\\ln "),
        (r"(?<=\d) *(?:\\text\s*\{\s*to\s*\}|to) *(?=\d)", ":"),
        (r"^[a-zA-Z]\s*\\equiv(?![a-zA-Z])\s*", ""),
        (r"(?<![\d.])(\d+(?:\.\d+)?)[eE]([-+]?)(\d{1,3})(?![\d.])", r"\1\\times 10^{\2\3}"),
        (r"(?<![\d–])–(?=\s*[\d\\.])", "-"),
        (r"(?:\\[ ,;:]|[,;\s~])+$", ""),
    )
)  # fmt: skip
_ANGLE = re.compile(
    r"(?P<name>\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])\s*(?:\^\s*(?:\{[^{}]*\}|\d)\s*)?)"
    r"(?P<open>(?:\\left\s*)?\(|\{)?\s*"
    r"(?:(?P<degrees>\d+(?:\.\d+)?)|\\[dt]?frac\{(?P<top>\d+)\}\{(?P<bottom>[1-9]\d*)\})"
    r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))\s*(?(open)(?:\\right\s*)?[)}])"
)
"""An angle in degrees as the argument of a function."""
_SYSTEM = re.compile(
    r"(?:\\\{\s*)?\\begin\{(cases|dcases|array|aligned)\}(?:\{[lcr| ]*\})?"
    r"(?P<rows>[^&]*)\\end\{\1\}\s*(?:\\right\s*\.)?"
)
_SEPARATOR = re.compile(r",\s|;|\\text\s*\{\s*(?:and|or)\s|\s(?:and|or)\s")
_THOUSANDS = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_REPEATING = re.compile(r"(\d*)\.(\d{0,20})\\(?:overline|bar|dot)\s*\{?(\d{1,20})\}?")
_LARGE = re.compile(
    r"(?P<before>\\?\$)?\s*(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)\s*(?:\\text\s*\{)?\s*"
    r"(?P<word>thousand|million|billion|trillion)(?![a-z])\s*\}?"
)
_ZEROS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def standard(text: str) -> str:
    """``text`` in the spelling that math-verify reads best. It means the same, to every reader of mathematics."""
    text = re.sub(r"\s+", " ", text)  # or the patterns below would try every way to share out a run of spaces
    if not text.isascii():
        text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = _VULGAR.sub(_vulgar, text)
        text = _RAISED.sub(lambda found: f"^{{{_level(found[0])}}}", text)
        text = _LOWERED.sub(lambda found: f"_{{{_level(found[0])}}}", text).translate(_SYMBOLS)
    text = with_commands(text)
    text = without_thousands(_system(text))
    for pattern, right in _SPELLINGS:
        text = pattern.sub(right, text)
    return _REPEATING.sub(_repeating, _LARGE.sub(_large, _ANGLE.sub(_angle, text))).strip()


def _vulgar(found: re.Match[str]) -> str:
    top, bottom = unicodedata.normalize("NFKC", found[0]).split("\N{FRACTION SLASH}")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _level(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")


def _system(text: str) -> str:
    """``x=1, y=2`` for a solution whose equations stand under a brace."""
    found = _SYSTEM.fullmatch(re.sub(r"\\left\s*(?=\\\{)", "", text).replace("&=", "=").strip())
    rows = [row.strip(" ,") for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["rows"])] if found else []
    return ", ".join(rows) if rows and all("=" in row for row in rows) else text


def without_thousands(text: str) -> str:
    """``1000, 2`` for ``1,000, 2``: where the elements of a list are set apart, a comma without a space is a number's.

    In ``100,200,300`` all commas are alike: there they separate.
    """
    return _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text) if _SEPARATOR.search(text) else text


def _angle(found: re.Match[str]) -> str:
    share = Fraction(found["degrees"] or f"{found['top']}/{found['bottom']}") / 180
    return f"{found['name']}(\\frac{{{share.numerator}\\pi}}{{{share.denominator}}})"


def _repeating(found: re.Match[str]) -> str:
    """0.1(6) repeating as the fraction that it is."""
    whole, fixed, period = (found[1] or "0"), found[2], found[3]
    bottom = 10 ** len(fixed) * (10 ** len(period) - 1)
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), bottom)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _large(found: re.Match[str]) -> str:
    value = Fraction(found["number"].replace(",", "")) * 10 ** _ZEROS[found["word"]]
    return str(value.numerator) if value.denominator == 1 else found[0]


def clean(text: str) -> str:
    """``text`` without commands that only change its size or spacing."""
    text = re.sub(r"\\(?:left|right|big|Big|bigg|Bigg)[lr]?(?![a-zA-Z])|(?<!\\)\\[!,;: ]|\$|~", " ", text)
    return re.sub(r"\s+", " ", text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")).strip().rstrip(".")


# --- What stands around a number -------------------------------------------------------------------------------------

_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:(?:final )?(?:answer|result|value|solution|total)(?: is|:)|"
    r"about|approximately|approx\.?|roughly|exactly|rs\.?|usd|eur)[ :]*(?=[-+\\$\d(.])",
    re.IGNORECASE,
)
_SIGN = re.compile(r"(?:\\approx(?![a-z])|\\pounds(?![a-z])|\\euro(?![a-z])|\\?\$|[€£¥₹₽=~])\s*")
_ORDINAL = re.compile(r"(?<=\d)\s*\^?\s*(?:\{\s*)*(?:\\(?:text|mathrm|textrm)\s*\{)?\s*(?:st|nd|rd|th)[\s}]*$")
_UNIT_FRACTION = re.compile(
    r"\\d?frac\s*\{\s*\\(?:text|mathrm)\s*\{[a-zA-Z ]+\}\s*\}"
    r"\s*\{\s*\\(?:text|mathrm)\s*\{[a-zA-Z ]+\}(?:\^\{?\d\}?)?\s*\}$"
)
_TEMPERATURE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:text|mathrm)\s*\{\s*)?[CF]?\s*\}?$|\\Omega\s*$")
_WORDS_AFTER = re.compile(
    r"(?<=[\d})\s%.])(?<!\\)([a-zA-Z]++(?:\^\{?\d\}?)?(?:[ /.]+[a-zA-Z]++(?:\^\{?\d\}?)?)*+)[ .]*$"
)
_COMMAND_AT_END = re.compile(r"\\(?!pi$|infty$)[a-zA-Z]+$")
_NO_UNITS = frozenset(
    "and or not to mod plus minus times if for than least most percent where when with even odd either none".split()
)
SHORT_UNITS = frozenset(
    "m s g h l L K N J W V C F A cm mm km dm nm kg mg ml mL dL in ft yd mi lb lbs oz min sec hr hrs mph kph rpm "
    "Hz kHz MHz Pa kPa mol rad deg kW kWh kJ eV USD EUR GBP ms pm am PM AM sq cu "
    "day men pen cup gal cal yr yrs pts".split()
)


def bare(text: str) -> str:
    """``text`` without what introduces a number or measures it: ``\\$18``, ``the answer is 5``, ``60 km/h``, ``5th``.

    Words of four letters are taken for things counted; shorter ones only where they are known units, since ``5 xy``
    is a product.
    """
    text = re.sub(r"\s+", " ", text)
    text = _UNIT_FRACTION.sub("", DRESS.sub(r" \1 ", text.strip()) if "frac" not in text else text).strip()
    text = DRESS.sub(r" \1 ", text).strip()
    for pattern in (_LEAD, _SIGN):
        if found := pattern.match(text):
            text = text[found.end() :].strip()
    text = _SIGN.sub("", text, count=1) if text.startswith("\\$") else re.sub(r"\s*(?:\\?\$|[€£¥₹₽])$", "", text)
    text = _TEMPERATURE.sub("", _ORDINAL.sub("", text)).strip()
    found = _WORDS_AFTER.search(text)
    head = text[: found.start()].strip() if found else ""
    if found and head and not _COMMAND_AT_END.search(head) and _are_units(found[1]):
        text = head
    return re.sub(r"[\s~\\]+$", "", text)


def _are_units(words: str) -> bool:
    found = re.findall("[a-zA-Z]+", words)
    return all(
        (len(word) > 3 or word in SHORT_UNITS or word == "per") and word.lower() not in _NO_UNITS for word in found
    ) or (found[0].lower() in ("of", "in") and len(found) > 1 and not set(found[1:]) & _NO_UNITS)
