from __future__ import annotations

import ast
import io
import re
import shlex
import zipfile

import pytest

from orchestrator.reach import code
from orchestrator.reach.code import LOADER, first_line, packed_code
from orchestrator.reach.interpreter import NoInterpreterError, choice, command


def test_the_archive_holds_the_package_and_nvml_s_bindings_and_nothing_else() -> None:
    names = zipfile.ZipFile(io.BytesIO(packed_code().data)).namelist()
    assert {"workers/__init__.py", "workers/keeper.py", "workers/models/alexnet.py", "workers/py.typed"} <= set(names)
    assert [name for name in names if not re.fullmatch(r"workers/(\w+/)*(\w+\.py|py\.typed)", name)] == ["pynvml.py"]


def test_the_same_code_is_the_same_archive() -> None:
    first = packed_code()
    code.packed_code.cache_clear()
    assert packed_code() == first


def test_the_loader_passes_any_quoting_as_it_is() -> None:
    assert set(LOADER).isdisjoint("'\"\\$`!\n%*?")
    assert shlex.split(shlex.join(command("~/my python's"))) == list(command("~/my python's"))


def test_the_bootstrap_is_one_line_that_an_old_python_can_read() -> None:
    line = first_line("ab" * 32, 10, 600)
    assert line.endswith(
        b"sys.exit(boot(stdin, 'abababababababababababababababababababababababababababababababab', 10.0, 600.0))\n"
    )
    assert line.count(b"\n") == 1
    # The line is itself a call of exec: what an old Python has to read is the text in it.
    (call, _) = ast.parse(line).body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    source = ast.literal_eval(call.value.args[0])
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source  # Python 3.6 does not know it


def test_the_wanted_version_is_chosen_wherever_it_was_found() -> None:
    listing = "3.9.2 /usr/bin/python3\n3.11.7 /opt/py 3.11/bin/python3\n"
    assert choice(listing, "3.11") == "/opt/py 3.11/bin/python3"


def test_where_it_is_missing_the_error_lists_what_was_found_once() -> None:
    listing = "hello from .bashrc\n3.9.2 /usr/bin/python3\n3.9.2 /usr/bin/python3\n3.1.1 /old/python3\n"
    with pytest.raises(NoInterpreterError) as caught:
        choice(listing, "3.11")
    assert caught.value.message == (
        "the head runs Python 3.11, and that host has /usr/bin/python3 (3.9.2), /old/python3 (3.1.1)"
    )
    assert "3.11" in (caught.value.remedy or "")
    assert "python:" in (caught.value.remedy or "")


def test_a_host_without_any_python_is_told_so() -> None:
    with pytest.raises(NoInterpreterError, match="no Python at all"):
        choice("", "3.11")
