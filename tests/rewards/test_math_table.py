"""A thousand answers and what they are worth, judged by mathematics and not by running the code.

One test a kind, which names every verdict that is wrong. What is known to be judged wrongly stands at the end.
"""

from __future__ import annotations

import pytest

from cascade_rl.rewarding.response import response_text
from rewards.math import verify

Rows = list[tuple[str, str]]
"""The reference, and what the model boxed."""

RIGHT: dict[str, Rows] = {
    "integers": [
        ("42", "42"), ("42", "+42"), ("42", "042"), ("42", "42.0"), ("42", "42."), ("42", "42.000"), ("-7", "-7"),
        ("-7", "−7"), ("-7", "–7"), ("-7", "(-7)"), ("-7", "{-7}"), ("0", "-0"), ("0", "0.0"), ("033", "33"),
        ("204", "0204"), ("10000", "1e4"), ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("2^{100}", "1267650600228229401496703205376"), ("1024", "2^{10}"), ("1024", "2^10"), ("120", "5!"),
        ("10", "\\binom{5}{2}"), ("10", "\\dbinom{5}{2}"), ("10", "\\binom{5}{3}"), ("10", "{5 \\choose 2}"),
        ("2520", "2^3 \\cdot 3^2 \\cdot 5 \\cdot 7"), ("2520", "2^3 \\times 3^2 \\times 5 \\times 7"),
        ("12", "3 \\cdot 4"), ("12", "3\\times 4"), ("12", "3 * 4"), ("5", "10/2"), ("5", "\\frac{10}{2}"),
        ("5", "10 \\div 2"),
    ],
    "thousands": [
        ("1000", "1,000"), ("1,000", "1000"), ("1000000", "1,000,000"), ("1000000", "1{,}000{,}000"),
        ("1000000", "1\\,000\\,000"), ("1000000", "1 000 000"), ("1000000", "1\\ 000\\ 000"), ("1000000", "10^6"),
        ("1234567", "1,234,567"), ("1234.5", "1,234.5"), ("1234.5", "1,234.50"), ("1,080", "1080"), ("-1,500", "-1500"),
        ("12,345", "12{,}345"), ("1000", "1,000 \\text{ dollars}"), ("1000", "\\$1,000"), ("1000", "\\$1,000.00"),
        ("1000000", "1 million"), ("2500000", "2.5 \\text{ million}"),
    ],
    "decimals": [
        ("0.5", ".5"), ("0.5", "0.50"), ("0.5", "1/2"), ("0.5", "\\frac12"), ("3.14", "3.14"), ("3.14", "3.140"),
        ("0.125", "1/8"), ("0.125", "\\frac{1}{8}"), ("0.125", "12.5\\%"), ("1/3", "0.3333333333"),
        ("0.001", "10^{-3}"), ("0.001", "1 \\times 10^{-3}"), ("2.50", "2.5"), ("18.00", "18"), ("18", "\\$18.00"),
        ("1.5", "1 \\frac{1}{2}"), ("1.5", "1\\frac12"), ("1.5", "3/2"), ("0.\\overline{3}", "1/3"),
        ("\\frac{1}{3}", "0.\\overline{3}"), ("0.\\overline{3}", "0.\\overline{3}"), ("0.1", "0.10000000000000001"),
        ("-0.5", "-\\frac12"), ("1.41421356", "\\sqrt2"),
    ],
    "fractions": [
        ("\\frac{3}{4}", "3/4"), ("\\frac{3}{4}", "\\dfrac{3}{4}"), ("\\frac{3}{4}", "\\tfrac{3}{4}"),
        ("\\frac{3}{4}", "\\tfrac34"), ("\\frac{3}{4}", "\\frac34"), ("\\frac{3}{4}", "\\dfrac34"),
        ("\\frac{3}{4}", "\\cfrac{3}{4}"), ("\\frac{3}{4}", "0.75"), ("\\frac{3}{4}", "6/8"), ("\\frac{3}{4}", "75\\%"),
        ("-\\frac{3}{4}", "\\frac{-3}{4}"), ("-\\frac{3}{4}", "\\frac{3}{-4}"), ("-\\frac{3}{4}", "-3/4"),
        ("-\\frac{3}{4}", "(-3)/4"), ("\\frac{3}{4}", "\\frac{-3}{-4}"), ("3/4", "\\frac{3} {4}"), ("3/4", "{3}/{4}"),
        ("3/4", "(3)/(4)"), ("3/4", "3 / 4"), ("3/4", "{3 \\over 4}"), ("3/4", "¾"), ("1/2", "½"), ("5/2", "2½"),
        ("\\frac{7}{2}", "3\\frac{1}{2}"), ("\\frac{7}{2}", "3 1/2"), ("\\frac{7}{2}", "3 \\frac12"),
        ("\\frac{7}{2}", "3\\tfrac12"), ("\\frac{7}{2}", "3.5"), ("3\\frac{1}{2}", "7/2"),
        ("-\\frac{7}{2}", "-3\\frac12"), ("\\frac{x}{2}", "\\frac12 x"), ("\\frac{x}{2}", "x/2"),
        ("\\frac{x}{2}", "0.5x"), ("\\frac{1}{1+\\frac{1}{2}}", "\\frac23"), ("\\frac{1}{0}", "\\frac{1}{0}"),
        ("\\frac{m}{n}", "m/n"), ("\\frac{m+1}{n}", "\\frac{1+m}{n}"), ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt2}2"), ("\\frac{3}{56}", "3/56"), ("\\frac{3}{56}", "\\frac3{56}"),
        ("\\frac{30}{7}", "\\frac{30}7"),
    ],
    "radicals": [
        ("\\sqrt{2}", "\\sqrt2"), ("\\sqrt{2}", "\\sqrt 2"), ("\\sqrt{2}", "2^{1/2}"), ("\\sqrt{2}", "2^{\\frac12}"),
        ("\\sqrt{2}", "√2"), ("\\sqrt{2}", "sqrt(2)"), ("\\sqrt{8}", "2\\sqrt{2}"), ("\\sqrt{8}", "2\\sqrt2"),
        ("\\sqrt{8}", "\\sqrt{2}\\cdot 2"), ("4\\sqrt{13}", "4\\sqrt{13}"), ("4\\sqrt{13}", "4√13"),
        ("4\\sqrt{13}", "\\sqrt{208}"), ("\\sqrt[3]{2}", "2^{1/3}"), ("\\sqrt[3]{8}", "2"), ("\\sqrt{4}", "2"),
        ("1+\\sqrt{5}", "\\sqrt5+1"), ("\\frac{1+\\sqrt5}{2}", "\\frac{\\sqrt{5}+1}{2}"), ("\\sqrt{x}", "x^{1/2}"),
        ("\\sqrt{x^2+1}", "\\sqrt{1+x^2}"), ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"), ("4\\sqrt{2}", "4\\sqrt(2)"),
    ],
    "constants": [
        ("\\pi", "\\pi"), ("\\pi", "π"), ("\\pi", "pi"), ("\\pi", "3.14159265"), ("2\\pi", "2π"),
        ("2\\pi", "\\pi\\cdot 2"), ("\\frac{\\pi}{6}", "\\pi/6"), ("\\frac{\\pi}{6}", "\\frac16\\pi"),
        ("36\\pi", "36 \\pi"), ("e", "e"), ("e^2", "e^{2}"), ("e^2", "\\exp(2)"), ("\\frac{1}{e}", "e^{-1}"),
        ("e", "2.718281828"), ("e^{i\\pi}", "-1"), ("\\ln 2", "\\log 2"), ("\\ln 2", "\\ln(2)"), ("\\ln 2", "\\ln{2}"),
        ("\\ln 2", "\\log_e 2"), ("\\log_2 8", "3"), ("2\\ln 3", "\\ln 9"), ("\\log_{10} 2", "\\log 2"),
    ],
    "powers": [
        ("6.02\\times 10^{23}", "6.02 \\cdot 10^{23}"), ("6.02\\times 10^{23}", "6.02e23"),
        ("6.02\\times 10^{23}", "6.02E23"), ("6.02\\times 10^{23}", "6.02*10^23"), ("3\\times 10^8", "300000000"),
        ("3\\times 10^8", "300,000,000"), ("1.5\\times 10^{-5}", "0.000015"), ("x^2", "x**2"), ("x^2", "x^{2}"),
        ("x^2", "x²"), ("x^{-1}", "\\frac1x"), ("2^n", "2^{n}"), ("2^{n+1}", "2\\cdot 2^n"), ("9^{9}", "387420489"),
        ("10^{-3}", "0.001"), ("2^{2019}", "2^{2019}"), ("2^{2019}-1", "2^{2019}-1"), ("4^{500}", "2^{1000}"),
    ],
    "percent": [
        ("50\\%", "50\\%"), ("50\\%", "50%"), ("50\\%", "50 \\%"), ("50\\%", "50"), ("50\\%", "0.5"),
        ("50\\%", "\\frac12"), ("50\\%", "50\\text{ percent}"), ("50", "50\\%"), ("50", "50%"), ("0.5", "50\\%"),
        ("12.5", "12.5\\%"), ("12.5", "12.5\\% \\text{ of the total}"), ("33\\frac13\\%", "\\frac{100}{3}\\%"),
        ("50", "50\\text{ percent}"), ("150\\%", "1.5"),
    ],
    "currency": [
        ("18", "\\$18"), ("18", "$18"), ("18", "18 dollars"), ("18", "18\\text{ dollars}"), ("18", "\\$18.00"),
        ("18", "18\\$"), ("\\$18", "18"), ("\\$18.50", "18.5"), ("18.5", "\\$18.50"), ("18", "€18"), ("18", "£18"),
        ("18", "\\pounds 18"), ("18", "18 \\text{ USD}"), ("1,250", "\\$1{,}250"), ("18", "\\text{\\$}18"),
        ("18", "\\text{Rs. }18"), ("18", "¥18"),
    ],
    "units": [
        ("5", "5 cm"), ("5", "5\\text{ cm}"), ("5", "5\\,\\text{cm}"), ("5", "5~\\mathrm{cm}"), ("5", "5\\text{cm}"),
        ("5", "5\\ \\text{cm}^2"), ("5", "5\\text{ cm}^2"), ("5", "5 \\text{ square units}"),
        ("5", "5\\text{ units}^2"), ("5", "5 \\mbox{ cm}"), ("5\\text{ cm}", "5"), ("5\\text{ cm}", "5 cm"),
        ("5 cm", "5\\text{ cm}"), ("5", "5 m/s"), ("5", "5\\text{ m/s}"), ("5", "5\\ \\frac{\\text{m}}{\\text{s}}"),
        ("9.8", "9.8\\text{ m/s}^2"), ("9.8", "9.8\\,\\mathrm{m/s^2}"), ("90", "90^\\circ"), ("90^\\circ", "90"),
        ("90", "90^{\\circ}"), ("90", "90°"), ("90", "90\\degree"), ("90", "90\\text{ degrees}"), ("90", "90 degrees"),
        ("20", "20^\\circ\\text{C}"), ("20", "20°C"), ("12", "12 apples"), ("12", "12 \\text{ apples}"),
        ("12", "12 hours"), ("12", "12\\text{ minutes}"), ("12", "12 min"), ("12", "12 kg"), ("12", "12\\text{kg}"),
        ("3", "3 \\text{ days}"), ("3", "3\\text{ years old}"), ("12", "12\\text{ people}"), ("12", "12\\text{ ways}"),
        ("12", "\\text{12 ways}"), ("12", "\\text{12}"), ("12", "\\text{about }12"), ("12", "x = 12 \\text{ cm}"),
        ("12", "12\\ \\Omega"), ("12", "12\\text{ in.}"), ("12", "12\\text{ mph}"), ("12", "12\\text{ cubic inches}"),
        ("12", "12 \\text{ inches}^3"), ("5\\text{ cm}", "5\\text{ m}"), ("2\\sqrt3", "2\\sqrt{3}\\text{ cm}"),
        ("36\\pi", "36\\pi\\text{ cm}^2"), ("36\\pi", "36\\pi \\text{ square units}"), ("12.5", "12.5 m"),
        ("\\frac{1}{2}", "\\frac12\\text{ hour}"), ("60", "60 km/h"), ("60", "60\\text{ km/h}"),
        ("40", "40\\text{ hours}"),
    ],
    "equations": [
        ("5", "x=5"), ("5", "x = 5"), ("x=5", "5"), ("x=5", "x = 5"), ("5", "n=5"), ("5", "k = 5"), ("5", "f(2)=5"),
        ("5", "a_5=5"), ("5", "\\angle ABC = 5^\\circ"), ("5", "AB = 5"), ("12", "2+10=12"), ("12", "3\\cdot 4 = 12"),
        ("y=2x+1", "y=2x+1"), ("y=2x+1", "y=1+2x"), ("y=2x+1", "2x+1"), ("2x+1", "y=2x+1"), ("y=2x+1", "y-2x=1"),
        ("y=2x+1", "2x-y+1=0"), ("x^2+y^2=4", "x^2+y^2=4"), ("x^2+y^2=4", "y^2+x^2=4"), ("x^2+y^2=4", "x^2+y^2-4=0"),
        ("2x+4y=6", "x+2y=3"), ("3x-y+13=0", "3x-y+13=0"), ("3x-y+13=0", "y=3x+13"), ("f(x)=x^2", "x^2"),
        ("x^2", "f(x)=x^2"), ("x=1,y=2", "x=1, y=2"), ("x=1, y=2", "y=2, x=1"), ("(1,2)", "x=1, y=2"),
        ("x=1,y=2", "(1,2)"), ("1,2", "x=1 \\text{ or } x=2"), ("1,2", "x=1,2"), ("1,2", "x_1=1, x_2=2"),
        ("x=\\frac12", "\\frac12"), ("S=10", "10"),
    ],
    "polynomials": [
        ("x^2+2x+1", "(x+1)^2"), ("x^2+2x+1", "1+2x+x^2"), ("x^2+2x+1", "x(x+2)+1"), ("(x-1)(x+2)", "(x+2)(x-1)"),
        ("(x-1)(x+2)", "x^2+x-2"), ("a^2-b^2", "(a+b)(a-b)"), ("2x+3", "3+2x"), ("2x+3", "2x + 3"),
        ("2x+3", "2\\cdot x+3"), ("x^3-1", "(x-1)(x^2+x+1)"), ("xy", "yx"), ("xy", "x y"), ("x^2-5x+6", "(x-2)(x-3)"),
        ("n(n+1)/2", "\\frac{n^2+n}{2}"), ("\\frac{n(n+1)}{2}", "\\binom{n+1}{2}"), ("-x+1", "1-x"), ("3x^2", "3x^{2}"),
        ("\\frac{x+1}{x-1}", "\\frac{1+x}{x-1}"), ("\\frac{x+1}{x-1}", "1+\\frac{2}{x-1}"),
        ("\\frac{x^2-1}{x-1}", "x+1"), ("2^{n}-1", "2^n-1"), ("a+b+c", "c+b+a"),
    ],
    "trig": [
        ("\\sin^2 x", "1-\\cos^2 x"), ("\\sin 2x", "2\\sin x\\cos x"), ("\\sin x", "\\sin(x)"),
        ("\\tan x", "\\frac{\\sin x}{\\cos x}"), ("\\cos\\frac{\\pi}{3}", "\\frac12"),
        ("\\sin\\frac{\\pi}{3}", "\\frac{\\sqrt3}{2}"), ("\\arctan 1", "\\frac{\\pi}{4}"),
        ("\\tan^{-1}(1)", "\\frac{\\pi}{4}"), ("\\ln(x^2)", "2\\ln x"), ("\\ln x+\\ln y", "\\ln(xy)"),
        ("\\cos 2x", "2\\cos^2 x-1"), ("\\sec x", "\\frac{1}{\\cos x}"), ("\\arcsin\\frac12", "\\frac{\\pi}{6}"),
        ("e^{x+y}", "e^x e^y"), ("-\\cos x + C", "C-\\cos x"), ("\\frac{x^2}{2}+C", "\\frac12 x^2+C"),
    ],
    "intervals": [
        ("[1,2)", "[1,2)"), ("[1,2)", "[1, 2)"), ("[1,2)", "\\left[1,2\\right)"), ("(1,2)", "(1, 2)"),
        ("(1,2)", "1<x<2"), ("[1,2]", "1\\le x\\le 2"), ("[1,2]", "1\\leq x\\leq 2"), ("(2,\\infty)", "x>2"),
        ("(2,\\infty)", "(2,+\\infty)"), ("(2,\\infty)", "(2,∞)"), ("(-\\infty,2]", "x\\leq 2"),
        ("(-\\infty,2]", "x \\leqslant 2"), ("x>2", "(2,\\infty)"), ("x>2", "x>2"), ("x>2", "2<x"), ("x\\ge 2", "x≥2"),
        ("x\\ge 2", "[2,\\infty)"), ("m\\ge\\sqrt2", "[\\sqrt2,\\infty)"), ("[\\sqrt2,\\infty)", "m\\ge\\sqrt2"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty,1)\\cup(2,\\infty)"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(2,\\infty)\\cup(-\\infty,1)"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty, 1) \\cup (2, +\\infty)"),
        ("(-\\infty,1)\\cup(2,\\infty)", "x<1 \\text{ or } x>2"), ("(1,2)", "x \\in (1,2)"), ("x \\in (1,2)", "(1,2)"),
        ("x\\in[1,2]", "[1,2]"), ("[-2,2]", "-2 \\le x \\le 2"), ("[-2,2]", "|x|\\le 2"), ("[0.5,1]", "[\\frac12,1]"),
        ("1 \\le x < 2", "[1,2)"), ("\\mathbb{R}", "(-\\infty,\\infty)"), ("(-\\infty,\\infty)", "\\mathbb{R}"),
        ("0<x\\le 1", "(0,1]"), ("(-\\infty,0)\\cup(0,\\infty)", "x\\neq 0"),
        ("(-\\infty,0)\\cup(0,\\infty)", "\\mathbb{R}\\setminus\\{0\\}"),
    ],
    "sets": [
        ("\\{1,2,3\\}", "\\{1,2,3\\}"), ("\\{1,2,3\\}", "\\{3,2,1\\}"), ("\\{1,2,3\\}", "\\{1, 2, 3\\}"),
        ("\\{1,2,3\\}", "\\left\\{1,2,3\\right\\}"), ("\\{1,2,3\\}", "1,2,3"),
        ("\\{1,2,3\\}", "\\lbrace 1,2,3\\rbrace"), ("\\{1,2\\}", "{1,2}"), ("\\{5\\}", "5"), ("5", "\\{5\\}"),
        ("\\{0.5,2\\}", "\\{2,\\frac12\\}"), ("\\{-1,1\\}", "\\{\\pm 1\\}"), ("\\{-1,1\\}", "\\pm 1"),
        ("\\emptyset", "\\varnothing"), ("\\emptyset", "\\emptyset"), ("\\emptyset", "\\{\\}"), ("\\emptyset", "∅"),
        ("\\varnothing", "\\emptyset"), ("\\{a,b\\}", "\\{b,a\\}"), ("\\{\\frac{1}{2},3\\}", "\\{3,0.5\\}"),
        ("\\{1,2,2\\}", "\\{1,2\\}"),
    ],
    "tuples": [
        ("(1,2)", "(1,2)"), ("(1,2)", "(1, 2)"), ("(1,2)", "\\left(1,2\\right)"), ("(1,2)", "1,2"),
        ("(1,2)", "\\langle 1,2\\rangle"), ("(3,\\frac{\\pi}{2})", "(3,\\pi/2)"),
        ("(3,\\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)"), ("(1,2,3)", "(1,2,3)"),
        ("(1,2,3)", "(1.0,2.0,3.0)"), ("(-1,0)", "(-1,0)"), ("(1,2),(3,4)", "(3,4),(1,2)"),
        ("(1,2),(3,4)", "(1,2),(3,4)"), ("(1,2),(3,4)", "(1,2) \\text{ and } (3,4)"), ("(x,y)=(1,2)", "(1,2)"),
        ("(1,2)", "(x,y)=(1,2)"), ("(1,2)", "A(1,2)"), ("(\\frac12,2)", "(0.5,2)"), ("(1,2)", "(1;2)"),
        ("(1000,2)", "(1000,2)"),
    ],
    "vectors": [
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\langle 1,2\\rangle"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}"),
        ("\\begin{pmatrix} 1/2 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}\\frac12\\\\2\\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\left[\\begin{array}{cc}1&2\\\\3&4\\end{array}\\right]"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1.0 & 2 \\\\ \\frac{6}{2} & 4 \\end{pmatrix}"),
        ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "-2"),
        ("\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}", "\\begin{pmatrix}1&0\\\\0&1\\\\ \\end{pmatrix}"),
        ("\\langle 1,2,3\\rangle", "(1,2,3)"), ("2\\mathbf{i}+3\\mathbf{j}", "2\\mathbf{i}+3\\mathbf{j}"),
    ],
    "several": [
        ("1,2", "1, 2"), ("1,2", "2,1"), ("1,2", "1 \\text{ and } 2"), ("1,2", "1 \\text{ or } 2"), ("1,2", "1 and 2"),
        ("1,2", "1; 2"), ("-1,1", "\\pm 1"), ("\\pm 1", "-1,1"), ("\\pm 1", "1,-1"), ("\\pm 1", "\\pm 1"),
        ("\\pm 1", "±1"), ("1\\pm\\sqrt2", "1+\\sqrt2, 1-\\sqrt2"), ("1+\\sqrt2, 1-\\sqrt2", "1\\pm\\sqrt{2}"),
        ("x=\\pm 2", "\\pm 2"), ("x=\\pm 2", "x=2,-2"), ("x = 1 \\text{ or } x = 2", "1,2"), ("1, 2, 3", "3, 1, 2"),
        ("2, 3, 5", "2, 3, 5"), ("\\frac{1}{2}, 2", "2, 0.5"), ("1, \\sqrt{2}", "\\sqrt 2, 1"),
    ],
    "complex": [
        ("3+4i", "3+4i"), ("3+4i", "4i+3"), ("i", "\\sqrt{-1}"), ("i", "\\mathrm{i}"), ("i", "i"), ("-1", "i^2"),
        ("(1+i)^2", "2i"), ("2i", "2\\sqrt{-1}"), ("\\frac{1}{i}", "-i"),
        ("e^{i\\pi/3}", "\\frac12+\\frac{\\sqrt3}{2}i"),
        ("\\cos\\frac{\\pi}{3}+i\\sin\\frac{\\pi}{3}", "\\frac12+\\frac{\\sqrt3}{2}i"), ("\\pm i", "i, -i"),
    ],
    "text": [
        ("\\text{yes}", "yes"), ("yes", "\\text{yes}"), ("yes", "Yes"), ("yes", "\\text{Yes}"), ("No", "no"),
        ("True", "true"), ("true", "\\text{True}"), ("Tuesday", "\\text{Tuesday}"), ("Tuesday", "tuesday"),
        ("Alice", "\\text{Alice}"), ("\\text{Evelyn}", "Evelyn"), ("east", "\\text{east}"), ("even", "\\text{even}"),
        ("\\text{(A)}", "A"), ("red", "\\text{red}"), ("\\text{ellipse}", "\\text{an ellipse}"),
        ("\\text{ellipse}", "\\textbf{ellipse}"), ("Bob", "\\text{Bob}."), ("two circles", "\\text{two circles}"),
        ("\\text{undefined}", "undefined"), ("DNE", "\\text{DNE}"), ("DNE", "dne"), ("none", "\\text{None}"),
        ("\\text{does not exist}", "\\text{DNE}"), ("no solution", "\\text{No solution}"),
        ("\\text{no solution}", "\\emptyset"), ("blue", "\\textit{Blue}"),
    ],
    "choices": [
        ("B", "B"), ("B", "(B)"), ("(B)", "B"), ("B", "\\text{B}"), ("B", "\\text{(B)}"), ("B", "\\textbf{(B)}"),
        ("B", "\\mathrm{B}"), ("B", "\\mathbf{B}"), ("B", "B."), ("B", "B)"), ("B", "b"), ("B", "\\text{Option B}"),
        ("(B)", "\\textbf{(B)}\\ 12"), ("B", "\\textbf{(B)}\\ 12"), ("B", "\\text{(B) }12"), ("A", "\\text{A}"),
        ("A", "a"), ("E", "e"), ("D", "\\textbf{(D) } 5"), ("C", "C: 42"), ("C", "\\text{C. Paris}"),
        ("A", "\\text{(A)}"), ("A", "\\boxed{A}"), ("E", "\\text{E}"), ("I", "\\text{I}"), ("A,C", "A, C"),
        ("A,C", "C, A"), ("A,C", "AC"),
    ],
    "bases": [
        ("101_2", "101_2"), ("101_2", "101_{2}"), ("101_2", "101"), ("2516_8", "2516_8"), ("2516_8", "2516_{8}"),
        ("2516_8", "2516"), ("2516", "2516_8"), ("\\text{FF}_{16}", "FF_{16}"), ("1B_{16}", "1B_{16}"),
        ("121_3", "121_{3}"), ("2516_8", "2516_{\\text{eight}}"),
    ],
    "misc": [
        ("1st", "1^{\\text{st}}"), ("5", "5^{\\text{th}}"), ("5", "5\\text{th}"), ("5th", "5\\text{th}"),
        ("3:30", "3:30"), ("3:30", "3:30\\text{ PM}"), ("3:30\\text{ p.m.}", "3:30 \\text{ PM}"), ("3:4", "3:4"),
        ("3:4", "3 : 4"), ("3:4", "\\frac34"), ("3:4", "3/4"), ("3:4", "6:8"), ("3:4", "3 \\text{ to } 4"),
        ("1:2:3", "1:2:3"), ("\\infty", "\\infty"), ("\\infty", "∞"), ("\\infty", "+\\infty"),
        ("\\infty", "\\text{infinity}"), ("-\\infty", "-\\infty"), ("July 4", "July 4"), ("July 4", "\\text{July 4}"),
        ("2024-01-15", "2024-01-15"), ("1/2/2024", "1/2/2024"), ("100!", "100!"), ("100!", "100\\cdot 99!"),
        ("\\frac{100!}{98!}", "9900"), ("\\binom{100}{50}", "\\binom{100}{50}"), ("n!", "n!"), ("n!", "n\\cdot(n-1)!"),
        ("\\lfloor 3.7\\rfloor", "3"), ("|{-3}|", "3"), ("|x|", "|x|"), ("\\sum_{k=1}^{n} k", "\\frac{n(n+1)}{2}"),
        ("\\sum_{k=1}^{10} k", "55"), ("\\int_0^1 x dx", "\\frac12"), ("\\overline{AB}", "\\overline{AB}"),
        ("\\triangle ABC", "\\triangle ABC"), ("\\theta", "\\theta"), ("\\alpha+\\beta", "\\beta+\\alpha"),
        ("1,2,\\ldots,n", "1,2,\\ldots,n"), ("1,2,\\ldots,n", "1,2,\\dots,n"), ("x \\equiv 3 \\pmod 5", "3 \\pmod 5"),
        ("3 \\pmod{5}", "3 \\pmod 5"), ("2k\\pi", "2\\pi k"),
        ("\\frac{\\pi}{2}+k\\pi, k\\in\\mathbb{Z}", "\\frac{\\pi}{2}+k\\pi, k\\in\\mathbb{Z}"),
    ],
    "spacing": [
        ("\\frac{1}{2}", " \\displaystyle\\frac{1}{2} "), ("\\frac12", "\\displaystyle \\frac{1}{2}"),
        ("5", "\\mathbf{5}"), ("5", "\\textbf{5}"), ("5", "{5}"), ("5", "{{5}}"), ("5", "\\boxed{5}"),
        ("5", "\\fbox{5}"), ("5", "$5$"), ("5", "\\(5\\)"), ("5", "\\ 5"), ("5", "5\\ "), ("5", "5 \\,"), ("5", "\\!5"),
        ("5", "~5~"), ("5", "\\quad 5"), ("5", "\\bf 5"), ("5", "\\rm 5"), ("5", "5."), ("5", "5,"), ("5", "5;"),
        ("5", "\n5\n"), ("5", "\\large 5"), ("5", "\\color{red}{5}"), ("5", "\\textcolor{red}{5}"),
        ("5", "\\mathrm{5}"), ("5", "(5)"), ("5", "[5]"), ("5", "\\left(5\\right)"), ("5", "\\approx 5"), ("5", "= 5"),
        ("5", "**5**"), ("5", "\\underline{5}"), ("5", "5 \\checkmark"), ("5", "5 \\quad"), ("x+1", "x \\, + \\, 1"),
        ("x+1", "\\left( x + 1 \\right)"), ("x+1", "{x+1}"), ("(x+1)(x+2)", "\\bigl(x+1\\bigr)\\bigl(x+2\\bigr)"),
        ("\\frac{a}{b}", "\\displaystyle{\\frac{a}{b}}"), ("5", "\\text{Answer: }5"), ("5", "\\text{The answer is }5"),
        ("5", "the answer is 5"),
    ],
    "neighbours": [
        ("5m", "5"), ("x=1,y=2", "(1,2)"), ("(x,y)=(1,2)", "x=1, y=2"), ("(1,2)", "P = (1,2)"), ("1:2:3", "2:4:6"),
        ("12.5\\%", "0.125"), ("1/3", "33\\frac13\\%"), ("33\\frac13\\%", "1/3"), ("2,000,000", "2 million"),
        ("2,000,000", "2 million dollars"), ("2,000,000", "\\$2 \\text{ million}"), ("3 million", "3,000,000"),
        ("0.1\\overline{6}", "\\frac16"), ("\\frac16", "0.1\\overline{6}"), ("\\frac{1}{7}", "0.\\overline{142857}"),
        ("2.\\overline{3}", "7/3"), ("\\sqrt[3]{2}", "∛2"), ("x^2+1", "x²+1"), ("x_1", "x₁"), ("a^{10}", "a¹⁰"),
        ("a^{10}", "a^10"), ("\\text{DNE}", "\\text{does not exist}"), ("\\text{DNE}", "\\text{Does Not Exist}"),
        ("\\emptyset", "\\text{no solutions}"), ("\\emptyset", "\\text{no real solution}"), ("B", "(B) 12"),
        ("B", "B: because it is (B)"), ("A,C", "A \\text{ and } C"), ("A, B, D", "ABD"), ("ln(2)", "\\ln 2"),
        ("\\log 2", "\\ln 2"), ("\\ln 8", "3\\log 2"), ("\\ln\\frac{x}{y}", "\\ln x-\\ln y"),
        ("\\frac{\\ln 3}{\\ln 2}", "\\log_2 3"), ("2+3i", "2+3\\sqrt{-1}"), ("-i", "i^3"), ("x^2+1", "(x+i)(x-i)"),
        ("x\\ne 0", "(-\\infty,0)\\cup(0,\\infty)"), ("(-\\infty,-1)\\cup(1,\\infty)", "x<-1 \\text{ or } x>1"),
        ("(-\\infty,-1)\\cup(1,\\infty)", "x>1 \\text{ or } x<-1"), ("x<1", "1>x"), ("[0,1]", "0\\le t\\le 1"),
        ("y>2x+1", "y>2x+1"), ("x+y\\le 3", "y+x\\le 3"), ("\\begin{pmatrix}1\\\\2\\\\3\\end{pmatrix}", "(1,2,3)"),
        ("(1,2,3)", "\\begin{pmatrix}1\\\\2\\\\3\\end{pmatrix}"), ("\\langle 1,2\\rangle", "\\langle 1,2\\rangle"),
        ("(1,2)", "<1,2>"), ("\\{(1,2),(3,4)\\}", "(1,2),(3,4)"), ("\\{(1,2),(3,4)\\}", "\\{(3,4),(1,2)\\}"),
        ("\\{(1,2)\\}", "(1,2)"), ("(1,2)", "\\{(1,2)\\}"), ("\\{x \\mid x>2\\}", "(2,\\infty)"),
        ("1A_{16}", "1a_{16}"), ("100_2", "100_{\\text{two}}"), ("2024-01-15", "2024-01-15."),
        ("15/1/2024", "15/1/2024"), ("5", "\\text{The final answer is: }5"), ("5", "**5**"), ("19", "\\textbf{19}"),
        ("19", "\\mathbf{19}"), ("19", "19\\blacksquare"), ("540", "540\\,\\text{dollars}"), ("540", "540/1"),
        ("64", "$64"), ("64", "64.00 dollars"), ("64", "64 cents"), ("7", "7 eggs per day"), ("7", "7 of the eggs"),
        ("8 \\text{ m}^2", "8 \\text{ m}^2"), ("2\\text{ hours}", "2"), ("50 \\text{ mph}", "50"),
        ("\\frac{1}{2} \\text{ cup}", "0.5"), ("0.1+0.2", "0.3"), ("6", "3!"), ("6!", "720"), ("5", "|-5|"),
        ("\\gcd(12,18)", "6"), ("2", "\\lceil 1.2\\rceil"), ("2", "\\log_{10} 100"),
        ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt 3}"), ("2-\\sqrt3", "\\frac{1}{2+\\sqrt3}"),
        ("2-\\sqrt3", "0.267949192"), ("|x|", "\\sqrt{x^2}"), ("\\frac{a-b}{c}", "-\\frac{b-a}{c}"), ("f'(x)=2x", "2x"),
        ("y'=2x", "2x"), ("2,4,6,\\ldots", "2,4,6,..."), ("\\$1{,}234.50", "1234.5"), ("\\text{A}", "\\text{A}"),
    ],
}  # fmt: skip
WRONG: dict[str, Rows] = {
    "integers": [
        ("42", "43"), ("42", "-42"), ("42", "4.2"), ("42", "420"), ("42", "24"), ("-7", "7"), ("0", ""), ("0", "1"),
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("2^{100}", "1267650600228229401496703205377"), ("1024", "2^{11}"), ("7", "VII"), ("7", "seven"), ("120", "4!"),
        ("10", "\\binom{6}{2}"), ("2520", "2^3 \\cdot 3^2 \\cdot 5"), ("12", "3+4"),
    ],
    "thousands": [
        ("1234567", "1,234,568"), ("1080", "1,08"), ("1000", "1,00"), ("1000", "1"), ("1000", "1.000"),
        ("2500000", "2.5 \\text{ billion}"),
    ],
    "decimals": [
        ("0.5", "0.51"), ("0.5", "5"), ("3.14", "3.15"), ("3.14", "\\pi"), ("\\pi", "3.14"), ("1/3", "0.333"),
        ("1/3", "0.34"), ("0.33", "1/3"), ("0.001", "10^{-4}"), ("1.5", "1/2"), ("0.\\overline{6}", "0.\\overline{3}"),
        ("\\frac{1}{3}", "0.\\overline{6}"), ("2.718", "e"), ("-0.5", "0.5"), ("1.4142", "\\sqrt{2}"),
    ],
    "fractions": [
        ("\\frac{3}{4}", "\\frac{4}{3}"), ("\\frac{3}{4}", "4/3"), ("\\frac{3}{4}", "-\\frac34"),
        ("\\frac{3}{4}", "34"), ("1/2", "⅓"), ("3\\frac{1}{2}", "3/2"), ("3\\frac{1}{2}", "31/2"),
        ("-\\frac{7}{2}", "-2\\frac12"), ("\\frac{x}{2}", "2/x"), ("\\frac{m+1}{n}", "m+\\frac1n"),
        ("\\frac{1}{\\sqrt{2}}", "\\sqrt{2}"), ("\\frac{3}{56}", "\\frac{3}56"),
    ],
    "radicals": [
        ("\\sqrt{2}", "\\sqrt{3}"), ("\\sqrt{2}", "-\\sqrt2"), ("\\sqrt{8}", "4\\sqrt2"), ("4\\sqrt{13}", "4\\sqrt{3}"),
        ("\\sqrt[3]{2}", "\\sqrt{2}"), ("\\sqrt{4}", "-2"), ("\\frac{1+\\sqrt5}{2}", "\\frac{1-\\sqrt{5}}{2}"),
        ("4", "4\\sqrt(2)"),
    ],
    "constants": [
        ("2\\pi", "\\pi"), ("\\frac{\\pi}{6}", "30^\\circ"), ("36\\pi", "36"), ("36", "36\\pi"), ("e^2", "2e"),
        ("\\ln 2", "\\log_{10} 2"), ("\\ln 2", "\\ln 3"),
    ],
    "powers": [
        ("6.02\\times 10^{23}", "6.02\\times 10^{22}"), ("1.5\\times 10^{-5}", "1.5\\times 10^{5}"), ("x^2", "x^3"),
        ("x^2", "2x"), ("2^{10}", "2^{9}"), ("3\\cdot 2^n", "6^n"), ("2^{2019}", "2^{2018}"),
        ("2^{2019}-1", "2^{2019}+1"), ("2^{2019}-1", "2^{2019}"),
    ],
    "percent": [
        ("50\\%", "5\\%"), ("50\\%", "51\\%"), ("150\\%", "15"),
    ],
    "currency": [
        ("18", "\\$19"), ("18", "\\$180"), ("0.75", "75\\text{ cents}"),
    ],
    "units": [
        ("5\\text{ cm}", "6\\text{ cm}"), ("5", "6 cm"), ("90^\\circ", "91^\\circ"), ("90^\\circ", "\\frac{\\pi}{2}"),
        ("12", "13 apples"), ("12", "\\text{twelve}"),
    ],
    "equations": [
        ("5", "x=6"), ("x=5", "y=5"), ("5", "x=5, y=6"), ("12", "3\\cdot 4 = 13"), ("y=2x+1", "y=2x-1"),
        ("y=2x+1", "2x-y-1=0"), ("y=2x+1", "x=2y+1"), ("x^2+y^2=4", "x^2+y^2=5"), ("3x-y+13=0", "3x+4y+14=0"),
        ("f(x)=x^2", "f(x)=x^3"), ("x=1,y=2", "x=2, y=1"), ("x=1,y=2", "(2,1)"), ("x=5", "x=-5"),
    ],
    "polynomials": [
        ("x^2+2x+1", "x^2+2x-1"), ("x^2+2x+1", "(x-1)^2"), ("(x-1)(x+2)", "(x+1)(x-2)"), ("a^2-b^2", "(a-b)^2"),
        ("2x+3", "2y+3"), ("2x+3", "3x+2"), ("xy", "x+y"), ("x^2-5x+6", "(x+2)(x+3)"),
        ("n(n+1)/2", "\\frac{n(n-1)}{2}"), ("3x^2", "(3x)^2"), ("2n+1", "2n-1"), ("2^{n}-1", "2^{n-1}"),
        ("a+b+c", "abc"),
    ],
    "trig": [
        ("\\sin x", "\\cos x"), ("\\cos 2x", "1-2\\cos^2 x"), ("\\frac{x^2}{2}+C", "\\frac13 x^3+C"),
    ],
    "intervals": [
        ("[1,2)", "(1,2)"), ("[1,2)", "[1,2]"), ("[1,2)", "[1,3)"), ("[1,2]", "1<x<2"), ("(2,\\infty)", "[2,\\infty)"),
        ("(2,\\infty)", "x\\ge 2"), ("(2,\\infty)", "x<2"), ("x>2", "x\\ge2"), ("x>2", "x<2"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty,1]\\cup(2,\\infty)"),
        ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty,1)"), ("(-\\infty,1)\\cup(2,\\infty)", "x<1 \\text{ or } x>3"),
        ("(-1,1)", "(1,-1)"), ("1 \\le x < 2", "1 \\le x \\le 2"), ("(0,1)", "\\{0,1\\}"),
    ],
    "sets": [
        ("\\{1,2,3\\}", "\\{1,2\\}"), ("\\{1,2,3\\}", "\\{1,2,4\\}"), ("\\{1,2,3\\}", "\\{1,2,3,4\\}"),
        ("\\emptyset", "0"), ("\\emptyset", "\\{0\\}"), ("\\emptyset", "\\{\\emptyset\\}"),
    ],
    "tuples": [
        ("(1,2)", "(2,1)"), ("(1,2)", "(1,3)"), ("(1,2)", "(1,2,3)"), ("(3,\\frac{\\pi}{2})", "(3,\\pi)"),
        ("(1,2,3)", "(3,2,1)"), ("(-1,0)", "(0,-1)"), ("(1,2),(3,4)", "(1,2)"), ("(1,2),(3,4)", "(2,1),(4,3)"),
        ("(1,2)", "(x,y)=(2,1)"),
    ],
    "vectors": [
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(2,1)"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 5 \\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "1,2,3,4"),
    ],
    "several": [
        ("1,2", "1"), ("1,2", "2"), ("1,2", "1,3"), ("1,2", "1,2,3"), ("1,2", "12"), ("\\pm 1", "1"),
        ("\\pm 1", "\\pm 2"), ("1\\pm\\sqrt2", "1+\\sqrt2"), ("5", "5 and 6"), ("5", "4, 5"), ("1,-2", "1,2"),
        ("1,2,3", "1,2,3,\\ldots"),
    ],
    "complex": [
        ("3+4i", "3-4i"), ("3+4i", "3+4j"), ("3+4i", "4+3i"), ("i", "-i"), ("i", "1"),
    ],
    "text": [
        ("yes", "no"), ("\\text{yes}", "\\text{no}"), ("no", "yes"), ("yes", "y"), ("true", "false"), ("True", "False"),
        ("\\text{True}", "\\text{False}"), ("Tuesday", "Thursday"), ("Monday", "Mon"), ("Alice", "Bob"),
        ("Evelyn", "Evely"), ("east", "seat"), ("odd", "even"), ("red", "blue"), ("ellipse", "parabola"),
        ("increasing", "decreasing"), ("\\text{two circles}", "\\text{two lines}"),
        ("circle and line", "\\text{line and circle}"), ("\\text{undefined}", "0"), ("DNE", "0"), ("DNE", "END"),
        ("\\text{not a real number}", "\\text{not real}"), ("\\text{Saturday}", "\\text{Sunday}"), ("ABC", "CBA"),
        ("ABC", "BAC"),
    ],
    "choices": [
        ("B", "C"), ("B", "(C)"), ("B", "\\text{(C)}"), ("B", "A, B"), ("B", "A \\text{ or } B"), ("B", "AB"),
        ("A", "E"), ("D", "\\textbf{(C) } 5"), ("E", "2.718281828"), ("A", "\\text{B}"), ("A,C", "A"),
    ],
    "bases": [
        ("101_2", "110_2"), ("101_2", "5"), ("2516_8", "2517_8"), ("2516_8", "2516_7"), ("1B_{16}", "1C_{16}"),
    ],
    "misc": [
        ("5th", "6th"), ("3:30", "3:31"), ("3:30", "4:30"), ("3:4", "4:3"), ("1:2:3", "1:3:2"), ("1:2:3", "3:2:1"),
        ("\\infty", "-\\infty"), ("\\infty", "0"), ("-\\infty", "\\infty"), ("July 4", "July 5"),
        ("July 4", "\\text{June 4}"), ("2024-01-15", "2024-01-16"), ("2024-01-15", "2008"), ("100!", "99!"),
        ("\\binom{100}{50}", "\\binom{100}{49}"), ("n!", "(n-1)!"), ("|x|", "x"), ("\\overline{AB}", "\\overline{BC}"),
        ("\\triangle ABC", "\\triangle ABD"), ("\\alpha", "\\beta"), ("1,2,\\ldots,n", "1,3,5,\\ldots,2n-1"),
        ("3\\pmod 5", "2\\pmod 5"), ("3\\pmod 5", "3\\pmod 7"), ("k\\pi", "2k\\pi"),
    ],
    "spacing": [
        ("5", "\\mathbf{6}"), ("5", "The answer is 6"),
    ],
    "garbage": [
        ("5", ""), ("5", " "), ("5", "?"), ("5", "\\"), ("5", "{"), ("5", "}"), ("5", "\\frac{"), ("5", "\\sqrt{}"),
        ("5", "\\frac{5}{}"), ("5", "\\frac{}{}"), ("5", "5 apples of 6"), ("5", "x"), ("5", "unknown"),
        ("5", "\\text{}"), ("5", "$$"), ("5", "\\%"), ("5", "%"), ("5", "None"), ("5", "nan"), ("5", "inf"), ("5", "_"),
        ("5", "^"), ("5", "5^"), ("5", "\\begin{pmatrix}"), ("5", "\x00"), ("5", "😀"), ("5", "五"), ("5", "5 6"),
        ("5", "56"), ("5", "5.5"), ("5", "555"), ("5", "4 or 5"), ("5", "\\ne 5"), ("5", "not 5"), ("5", ">5"),
        ("5", "x>5"), ("5", "\\le 5"), ("5", "5+"), ("5", "5-0.001"), ("5", "1,2,3,4,5"), ("5", "[1,10]"),
        ("5", "\\{1,2,3,4,5\\}"), ("5", "5x"), ("5", "5i"), ("5", "5\\sqrt{-1}"), ("5", "import os"),
        ("5", "__import__('os').system('ls')"), ("5", "5\\\\6"),
    ],
    "neighbours": [
        ("5 hours 30 minutes", "5"), ("5", "5 hours 30 minutes"), ("5", "5 xy"), ("5", "5 \\sin m"), ("5", "5\\log m"),
        ("5x", "5"), ("5", "5 x"), ("(1,2)", "x=2, y=1"), ("(1,2)", "B(2,1)"), ("1:2:3", "1:2"),
        ("3:4", "3 \\text{ to } 5"), ("12.5\\%", "0.12"), ("0.125", "12.6\\%"), ("2,000,000", "20 million"),
        ("\\frac16", "0.\\overline{16}"), ("2.\\overline{3}", "23/9"), ("x_1", "x_2"), ("\\text{DNE}", "1"),
        ("\\emptyset", "\\text{one solution}"), ("B", "(A) or (B)"), ("B", "\\text{B or C}"), ("B", "(C) 12"),
        ("B", "12"), ("C", "\\text{Option D}"), ("A,C", "A \\text{ and } D"), ("A, B, D", "ABC"),
        ("\\ln 8", "3\\log_{10} 2"), ("\\ln\\frac{x}{y}", "\\ln x+\\ln y"), ("\\ln(x+1)", "\\ln x+\\ln 1"),
        ("\\log_2 3", "\\log_3 2"), ("2+3i", "2-3\\sqrt{-1}"), ("i", "-\\sqrt{-1}"), ("-1", "i^3"),
        ("x^2-1", "(x+i)(x-i)"), ("x\\ne 0", "x=0"), ("x\\ne 0", "x\\ne 1"),
        ("(-\\infty,-1]\\cup[1,\\infty)", "x<-1 \\text{ or } x>1"), ("x<1", "x>1"), ("[0,1]", "[0,1)"),
        ("(0,1)", "0<x\\le 1"), ("a<5", "a<6"), ("y>2x+1", "y>2x-1"),
        ("\\begin{pmatrix}1\\\\2\\\\3\\end{pmatrix}", "(1,2)"),
        ("(1,2,3)", "\\begin{pmatrix}3\\\\2\\\\1\\end{pmatrix}"), ("\\langle 1,2\\rangle", "\\langle 2,1\\rangle"),
        ("\\{1,2\\}", "(1,2)"), ("1234_5", "1234_6"), ("12/25/2024", "25/12/2024"), ("3:30", "3.5"),
        ("5", "5\\text{ or more}"), ("5", "\\text{at least }5"), ("5", "at least 5"), ("5", "less than 5"),
        ("5", "5 mod 7"), ("5", "\\text{not }5"), ("5", "not equal to 5"), ("5", "minus 5"), ("5", "**6**"),
        ("19", "\\text{nineteen}"), ("-3", "\\text{negative }3"), ("50 \\text{ mph}", "60"), ("\\alpha", "a"),
        ("2^{-99}", "2^{-98}"), ("10^{100}", "10^{101}"), ("1/2004!", "1/2006!"), ("99999999", "100000000"),
        ("1000000.5", "1000000.4"), ("1e-7", "0"), ("6", "3!!"), ("\\frac{\\sqrt{3}}{3}", "\\frac{\\sqrt{3}}{2}"),
        ("2-\\sqrt3", "0.26795"), ("\\sqrt{x^2}", "x"), ("p-q", "q-p"), ("\\frac{a-b}{c}", "\\frac{b-a}{c}"),
    ],
}  # fmt: skip

RESPONSES = [
    ("42", "<think>\nx\n</think>\n\\boxed{42}", 1, 1),
    ("42", "<think>\n\\boxed{41}\n</think>\n\\boxed{42}", 1, 1),
    ("42", "<think>\n\\boxed{42}\n</think>\nIt is 42.", 0, 0),
    ("42", "<think>\n\\boxed{42}\n</think>\n\\boxed{41}", 0, 0),
    ("42", "<think>\n\\boxed{42}", 0, 1),
    ("42", "\\boxed{42}", 0, 1),
    ("42", "<think></think>\\boxed{42}", 1, 1),
    ("42", "a</think>\\boxed{42}</think>", 0, 0),
    ("42", "a</think>\\boxed{41}</think>\\boxed{42}", 1, 1),
    ("42", "</think>\\boxed{42} and \\boxed{43}", 0, 0),
    ("42", "</think>\\boxed{43} wait \\boxed{42}", 1, 1),
    ("42", "</think>\\boxed{42", 0, 0),
    ("42", "</think>\\boxed{42} then \\boxed{43", 1, 1),
    ("42", "</think>\\boxed{\\boxed{42}}", 1, 1),
    ("42", "</think>\\fbox{42}", 0, 0),
    ("42", "</think>\\boxed 42", 0, 0),
    ("42", "</think>\\boxed{\n42\n}", 1, 1),
    ("42", "</think>$$\\boxed{42}$$", 1, 1),
    ("42", "</think>\\[\\boxed{x = 42}\\]", 1, 1),
    ("42", "</think>boxed{42}", 0, 0),
    ("42", "</think>**42**", 0, 0),
    ("42", "", 0, 0),
    ("42", "</think>", 0, 0),
    ("\\frac{1}{2}", "</think>\\boxed{\\frac{1}{2}}", 1, 1),
    ("\\{1,2\\}", "</think>\\boxed{\\{1,2\\}}", 1, 1),
    ("\\{1,2\\}", "</think>\\boxed{\\left\\{1,2\\right\\}}", 1, 1),
    ("1,2", "</think>$\\boxed{1}$ and $\\boxed{2}$", 1, 1),
]  # fmt: skip
"""The reference, all that the model wrote, and its worth with thinking and without."""

KNOWN_TO_BE_WRONG = [
    ("\\sin 30^\\circ", "\\frac12", 1),  # degrees within a function
    ("1,000, 2", "2, 1000", 1),  # a comma within a number, in a list
    ("sun", "nus", 0),  # three small letters are a product; \\text{sun} is a word
    ("AB", "BA", 0),  # as a number of two digits; as a segment they are equal
    ("5", "5 ab", 0),
    ("x^2", "X^2", 0),  # math-verify tells no small letter from a capital
]


def judged(rows: Rows) -> dict[tuple[str, str], float]:
    return {(answer, boxed): verify(f"So \\boxed{{{boxed}}}.", answer=answer).value for answer, boxed in rows}


@pytest.mark.parametrize("kind", RIGHT)
def test_right(kind):
    assert [row for row, value in judged(RIGHT[kind]).items() if value != 1] == []


@pytest.mark.parametrize("kind", WRONG)
def test_wrong(kind):
    assert [row for row, value in judged(WRONG[kind]).items() if value != 0] == []


@pytest.mark.parametrize(("answer", "completion", "thinking", "instruct"), RESPONSES)
def test_where_the_box_must_stand(answer, completion, thinking, instruct):
    for thinks, value in ((True, thinking), (False, instruct)):
        score = verify(response_text(completion, thinks), answer=answer, completion=completion)
        assert (score.value, score.error) == (value, None)


@pytest.mark.parametrize(("answer", "boxed", "value"), KNOWN_TO_BE_WRONG)
def test_known_to_be_judged_wrongly(answer, boxed, value):
    """To be moved to its table above by whoever repairs it."""
    assert judged([(answer, boxed)]) != {(answer, boxed): value}
