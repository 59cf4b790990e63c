"""Lines of keys in odd layouts."""

from __future__ import annotations

import tomllib

import pytest

from mta.config.lines import Lines, Path


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2", ("b",), 2),
        ("[t]\n\nk = 1", ("t", "k"), 3),
        ("[t]\n\nk = 1", ("t",), 1),
        ("[t]\nk = 1", ("t", "missing"), 1),
        ("k = 1", ("missing",), 1),
        ("\n[[l]]\na=1\n[[l]]\na=2", ("l", 1, "a"), 5),
        ("\n[[l]]\na=1\n[[l]]\na=2", ("l", 0, "a"), 3),
        ("\n[[l]]\na=1\n\n[[l]]\n", ("l", 1), 5),
        ("[[l]]\n[l.sub]\nk=1\n[[l]]\n[l.sub]\nk=2", ("l", 1, "sub", "k"), 6),
        ("[[l]]\n[[l.m]]\nk=1\n[[l.m]]\n[[l]]\n[[l.m]]\nk=3", ("l", 1, "m", 0, "k"), 7),
        ("\nt.k = 1", ("t", "k"), 2),
        ("\n t . k = 1", ("t", "k"), 2),
        ("\nt.k = 1", ("t",), 2),
        ('\n"t"."k" = 1', ("t", "k"), 2),
        ("\n't'.'k' = 1", ("t", "k"), 2),
        ('\n"a.b" = 1', ("a.b",), 2),
        ('\n"a=b" = 1', ("a=b",), 2),
        ('\n"a\\"b" = 1', ('a"b',), 2),
        ("\n\"'a'\" = 1", ("'a'",), 2),
        ('\n["t"]\nk = 1', ("t", "k"), 3),
        ('\n[ a . "b.c" ]\nk = 1', ("a", "b.c", "k"), 3),
        ("\n[ [l] ]\n".replace("[ [", "[[").replace("] ]", "]]"), ("l", 0), 2),
        ("\nt = {a = 1, b = 2}", ("t", "b"), 2),
        ("\nt = {a = [\n1,\n2]}\nz = 1", ("z",), 5),
        ('a = """\n[x]\nb = 2\n"""\nb = 3', ("b",), 5),
        ("a = '''\n[x]\nb = 2\n'''\nb = 3", ("b",), 5),
        ('a = """one"""\nb = 3', ("b",), 2),
        ('a = """\n\\"""\n[x]\nb = 1"""\nb = 3', ("b",), 5),
        ('a = """x""""\nb = 3', ("b",), 2),
        ('a = """\nx"""""\nb = 3', ("b",), 3),
        ("a = '''x''''\nb = 3", ("b",), 2),
        ("a = '''\\'''\nb = 3", ("b",), 2),
        ('a = "\\\\"\nb = 3', ("b",), 2),
        ('a = ""\nb = 3', ("b",), 2),
        ('a = "[" # ]\nb = 3', ("b",), 2),
        ("a = '#['\nb = 3", ("b",), 2),
        ('a = [\n"[x]",\n"b = 2",\n# b = [\n]\nb = 3', ("b",), 6),
        ("a = [\n  [1, 2],\n  [3],\n]\nb = 3", ("b",), 5),
        ("a = [ # ]\n1\n]\nb = 3", ("b",), 4),
        ("# [x]\n# b = 1\nb = 3", ("b",), 3),
        ("[t] # [u]\nk = 1", ("t", "k"), 2),
        ("a = 1\r\n[t]\r\nk = 1\r\n", ("t", "k"), 3),
        ('a = """\r\n[x]\r\n"""\r\nb = 3', ("b",), 4),
        ("a = [\r\n1,\r\n]\r\nb = 3", ("b",), 4),
        ("\tk = 1", ("k",), 1),
        ("a = 1\nt.x = 1\n[t.y]\nk = 1", ("t", "y", "k"), 4),
        ('"" = 1\n', ("",), 1),
    ],
)
def test_lines(text: str, path: Path, line: int) -> None:
    tomllib.loads(text)
    assert Lines(text).of(path) == line


def test_what_a_list_of_tables_holds_by_number() -> None:
    text = 'domain = [\n  {name = "a"},\n  {name = "b"},\n]\n'
    tomllib.loads(text)
    assert Lines(text).of(("domain", 1, "name")) == 1
