"""
What the README and the pages show is run, on the embedded model.

Each page is run from top to bottom in a folder of its own, the `workspace`, where the Hub ids that pages name are
folders, which Transformers and `litelvlm` take before the Hub. Python blocks of a page share their names. Of bash
blocks each `litelvlm` command is read by the real parser and run, and extras and scripts that they name exist. A
`text` block is what the block before it prints; `...` stands for anything. Blocks below `<!-- not run: REASON -->` are
read but not run, and `NOT_RUN` counts them.
"""

import contextlib
import doctest
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

from litelvlm.commands.main import build_parser, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "agents.md": 1,
    "annotate.md": 1,
    "convert.md": 1,
    "demo.md": 1,
    "embedded-model.md": 2,
    "engines.md": 2,
    "evaluate.md": 2,
    "fine-tune.md": 1,
    "label.md": 2,
    "llava.md": 1,
    "lmms-eval.md": 1,
    "many-gpus.md": 2,
    "publish.md": 1,
    "quantise.md": 1,
    "serve.md": 4,
    "speed.md": 3,
    "video.md": 3,
}
REASON = re.compile(r"<!-- not run: \S[^>]* -->\s*\Z")
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
# What else stands in blocks that are run: their environment is that of the tests
INSTALLING = ("python3", "python", "pip", "pytest", "run")


def blocks_of(page):
    parsers = [CodeBlockParser(language, print) for language in ("python", "bash", "text")]
    return list(Document.parse(str(page), *parsers).examples())


def language_of(block):
    return block.region.lexemes["arguments"]


def is_run(block):
    return REASON.search(block.document.text, 0, block.start) is None


def commands_of(source):
    """The words of each command."""
    command = []
    for line in source.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        for word in [*words, ";"]:
            if word.strip("&;|"):
                command.append(word)
            elif command:
                yield command
                command = []


def arguments_of(command):
    """Those of a `litelvlm` command, behind variables and whatever starts it; `None` for another command."""
    names = [Path(word).name for word in command]
    if "litelvlm" not in names or {"install", "lmms_eval"} & set(names):
        return None
    return command[names.index("litelvlm") + 1 :]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_scripts_and_extras_that_a_page_names_exist(page):
    for block in blocks_of(page):
        if language_of(block) != "bash":
            continue
        for command in commands_of(block.parsed):
            arguments = arguments_of(command)
            if arguments is not None and arguments != ["--help"]:
                build_parser().parse_args(arguments)  # says what is wrong, and exits
        for script in re.findall(r"\bscripts/[\w/]+\.\w+", block.parsed):
            assert (ROOT / script).is_file(), f"{page.name}, line {block.line}: there is no {script}"
        for extra in re.findall(r"(?:litelvlm|\.)\[(\w+)\]", block.parsed):
            assert extra in EXTRAS, f"{page.name}, line {block.line}: there is no extra {extra}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_of_a_page_run(page, workspace):
    names = {"__name__": "__main__"}
    printed = None
    for block in blocks_of(page):
        place = f"{page.name}, line {block.line}"
        if not is_run(block):
            continue
        if language_of(block) == "text":
            same = doctest.OutputChecker().check_output(block.parsed, printed, doctest.ELLIPSIS)
            assert same, f"{place}: the block before it printed\n{printed}"
            continue
        print(place, file=sys.stderr)  # which pytest shows where a block fails
        with contextlib.redirect_stdout(io.StringIO()) as out:
            run(block, names)
        printed = out.getvalue()


def run(block, names):
    if language_of(block) == "python":
        exec(compile("\n" * block.line + block.parsed, block.path, "exec"), names)
        return
    for command in commands_of(block.parsed):
        arguments = arguments_of(command)
        if arguments is None:
            assert Path(command[0]).name in INSTALLING, f"{shlex.join(command)} is not run; say why"
        else:
            assert main(arguments) == 0, shlex.join(command)


def test_blocks_that_are_not_run_are_listed():
    counted = {page.name: sum(not is_run(block) for block in blocks_of(page)) for page in PAGES}
    assert {name: count for name, count in counted.items() if count} == NOT_RUN


def test_links_lead_to_files_of_the_tree():
    """`mkdocs build --strict` looks at those between pages; these are read on GitHub too."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_evidence_names_each_result():
    evidence = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    for path in (ROOT / "benchmarks" / "results").glob("*.md"):
        assert f"(../benchmarks/results/{path.name})" in evidence
