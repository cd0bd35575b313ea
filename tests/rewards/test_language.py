"""Language consistency, by the rules of recipe.md section 6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.language import foreign, prose, same_language

ENGLISH = "What is the sum of the first ten primes?"


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nAdd 2 + 3 + 5 ...\n</think>\n\nIt is \\boxed{129}.",
        "Let α = π/2 and β → ∞; ∑ x² ≤ 4 ✓ 🎉 — “quoted” café naïve Ångström",
        "",
        "١٢٣ and ४५",  # digits of any script are digits
        "In code:\n```python\n# комментарий 注释\nprint('привет')\n```\nthat is all.",
        "Inline `变量` and $x_{\\text{最大}}$ and \\(\\text{да}\\) and \\[ 和 \\] are no prose.",
        "\\begin{align} x &= \\text{和} \\end{align}",
        "see https://пример.рф/путь for more",
        "an unclosed block ```\nпривет",
    ],
)
def test_english_with_code_formulas_and_symbols_is_english(text):
    assert same_language(text, prompt=ENGLISH).value == 1


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("First we 计算 the sum.", "Han"), ("Итак, the sum", "Cyrillic"), ("the sum です", "kana"), ("합 is 129", "Hangul"),
        ("المجموع", "Arabic"), ("סכום", "Hebrew"), ("योग", "Devanagari"), ("ผลรวม", "Thai"), ("one 和", "Han"),
        ("after `code` и then", "Cyrillic"), ("$x$ 是 $y$", "Han"),
    ],
)  # fmt: skip
def test_one_letter_of_another_script_is_enough(text, script):
    score = same_language(text, prompt=ENGLISH)
    assert score.value == 0
    assert score.details["foreign"].startswith(script)


def test_letters_of_the_prompt_may_be_spoken_of():
    assert same_language("The character 和 means peace.", prompt="What does 和 mean?").value == 1
    assert same_language("The characters 和平 mean peace.", prompt="What does 和 mean?").value == 0


@pytest.mark.parametrize(
    ("prompt", "text", "value"),
    [
        ("请问前十个质数的和是多少？", "前十个质数之和为129。", 1),
        ("请问前十个质数的和是多少？", "用 Python 计算 sum(primes)，结果是 129，这就是答案。", 1),
        ("请问前十个质数的和是多少？", "The sum of the first ten primes is 129, as one can check.", 0),
        ("请问前十个质数的和是多少？", "答案は129です。", 0),
        ("最初の十個の素数の和は？", "最初の十個の素数の和は129です。", 1),
        ("처음 열 개 소수의 합은?", "합은 129입니다.", 1),
        ("Чему равна сумма?", "Сумма равна 129.", 1),
        ("Чему равна сумма?", "Сумма равна 129，完毕。", 0),
        ("Translate 'сегодня' into English, please, and explain the word.", "It means today: сегодня.", 1),
        ("1 + 1 = ?", "two", 1),
        ("", "anything", 1),
    ],
)
def test_prompts_in_other_scripts(prompt, text, value):
    assert same_language(text, prompt=prompt).value == value


def test_languages_of_one_script():
    german = (
        "Das hier ist ein deutscher Satz, der sicher erkannt wird, weil er lang genug ist und keine Fremdwörter hat. "
    )
    polish = "To jest zupełnie zwyczajne zdanie po polsku, którego żaden Anglik nie weźmie za swoje, bo i jak. "
    english = "This is an answer in plain English that nobody could take for anything else at all. "
    assert same_language(german * 3, prompt=ENGLISH, detector="script").value == 1
    assert same_language(german * 3, prompt=ENGLISH).value == 0
    assert same_language(polish * 3, prompt=ENGLISH).value == 1  # not one of those whose small words are known
    assert same_language(polish * 3, prompt=ENGLISH, detector="cld2").value == 0
    assert same_language(english * 3, prompt=ENGLISH, detector="cld2").value == 1
    assert same_language(english * 3 + "\x00\x1b", prompt=ENGLISH, detector="cld2").value == 1
    assert same_language("ok", prompt=ENGLISH, detector="cld2").value == 1  # too short to tell
    with pytest.raises(ValueError, match="detector.*'lingua'"):
        same_language("x", prompt="y", detector="lingua")


SPANISH = "¿Cuál es la suma de los primeros diez números primos?"


@pytest.mark.parametrize(
    "text",
    [
        "La suma de los primeros diez números primos es 129, porque al sumar cada uno de los números se obtiene esto.",
        "Die Summe der ersten zehn Primzahlen ist 129, weil wir die Zahlen addieren und das Ergebnis so erhalten.",
        "La somme des dix premiers nombres premiers est 129, donc nous avons la réponse avec ce calcul.",
        "De som van de eerste tien priemgetallen is 129, want wij hebben het niet voor niets geteld en dat is het.",
        "A soma dos primeiros dez números primos não é 130, então o resultado é 129 porque os números são os que são.",
        "La somma dei primi dieci numeri primi è 129 perché sono quelli che si vedono nella lista della domanda.",
        "We add the numbers. Entonces la suma de los números es igual a cincuenta y se obtiene lo que es. So it is 129.",
        "It costs $5, 然后 $6.", "It costs \\$5. 然后 \\$6.", "а look-alike", "\\text{是} the answer",
    ],
)  # fmt: skip
def test_leaving_english(text):
    assert same_language(text, prompt=ENGLISH).value == 0


@pytest.mark.parametrize(
    "text",
    [
        "Los Angeles, Las Vegas and San Francisco de Asís are the cities.",
        "de la Vallée Poussin proved it; Erdős, Gödel, Łukasiewicz and the heer de Vries van het Hof did not.",
        "It is a fact (the Théorème de Fermat) that C'est la vie.", "¯\\_(ツ)_/¯ I am not sure. ಠ_ಠ",
        "It costs $5 and then $6, so the total is $11.", "5 µm at 20 ℃ ① Ⅳ № ® ™ ℵ₀ x⁴ ｆｕｌｌ ｗｉｄｔｈ", "$ y_{\\text{最大}} $ is it",
        "Let a, b, c, d, e be roots: a + b = c, d e = f.", "no no no no no", "un deux trois un deux", "x = 5", "42",
    ],
)  # fmt: skip
def test_names_symbols_and_prices_are_english(text):
    assert same_language(text, prompt=ENGLISH).value == 1


@pytest.mark.parametrize(
    ("prompt", "text", "value"),
    [
        ("Translate '今天天气很好，我们去公园吧。' to English", "The weather is nice today, so let us go to the park.", 1),
        ("Translate 'Hello, how are you?' into Chinese.", "你好，你好吗？", 1),
        ("Write a haiku in Japanese about the sea.", "海の音 静かに響く 夏の夜", 1),
        ("Write a poem in Spanish.", "La luna sale por la noche y el mar canta para los que esperan en la costa", 1),
        ("Solve by the Chinese remainder theorem: x = 2 mod 3", "We use 中国 remainder", 0),
        ("求解方程 2x + 3 = 7", "解：2x = 4，因此 x = 2。使用 Python 验证。", 1),
        ("计算 sin(x)cos(x) 的导数", "导数是 cos(2x)，因为 sin(x)cos(x) = sin(2x)/2。", 1),
        ("求 \\int_0^1 x^2 e^x dx 的值", "用分部积分，结果为 e-2。", 1),
        ("请计算 1+1", "x = 3，y = 5，a b c d e f g h i j k = 1", 1),
        (SPANISH, "La suma de los primeros diez números primos es 129 porque los números son los que se ven.", 1),
        (SPANISH, "The sum of the first ten primes is 129, and that is the answer to the question.", 0),
        ("Calcula 2+2", "La suma de los números es 4 porque dos y dos son cuatro.", 1),
        ("Wie groß ist die Summe?", "Die Summe ist 129, weil wir die Zahlen addieren.", 1),
        ("日本の首都は？", "The capital of Japan is Tokyo, of course, as everybody knows.", 0),
        # No prompt, or only formulas: any language, and not two.
        ("1+1=?", "答案是 2", 1), ("", "Ответ: 4", 1), ("", "答案是 2，因为 1+1=2", 1),
        ("", "We first compute the sum. 然后我们得到答案。 So it is 4.", 0), ("1+1=?", "We add them 然后 it is 2", 0),
    ],
)  # fmt: skip
def test_what_the_prompt_asks_for(prompt, text, value):
    assert same_language(text, prompt=prompt).value == value


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_has_a_verdict(text, prompt):
    found = foreign(text, prompt)
    assert found is None or isinstance(found, str)


@given(st.text(alphabet=st.characters(max_codepoint=0x24F), max_size=200))
def test_latin_letters_are_never_foreign_to_a_latin_prompt(text):
    assert foreign(text, ENGLISH) is None


@pytest.mark.parametrize(
    "part", ["x $", "```", "\\(", "\\begin{a}", "`", "$a\n", "我\\(", "我```", "我$$a", "我\\begin{a}"]
)
def test_a_megabyte_of_openings_is_no_trap(part):
    """Each would take minutes if every opening were followed to the end of the text."""
    prose(part * (1_000_000 // len(part)))


@pytest.mark.parametrize("part", ["“", "「", "«", "'", '"', "日'", "日「", "la de que ", "日in a b "])
def test_a_megabyte_without_a_prompt_is_no_trap(part):
    foreign(part * (1_000_000 // len(part)), "")
