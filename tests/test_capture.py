"""What reached the console? Promises of `runctx.capture.console`."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runctx.capture import console
from runctx.capture.console import Capture
from runctx.capture.tee import LONGEST, Lines

ROOT = Path(__file__).parent.parent
HEAD = """
import contextlib, ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from runctx.capture import console
from runctx.capture.console import Capture, say
path = Path("run.log")
libc = ctypes.CDLL(None)
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script in an empty folder; gives its output and the lines of its log."""

    def run(code, *, returncode=0, **options):
        (tmp_path / "script.py").write_text(HEAD + textwrap.dedent(code))
        result = subprocess.run(
            [sys.executable, "-W", "error", "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **({"capture_output": True} | options),
            timeout=60,
        )
        assert result.returncode == returncode, result.stderr
        return result, lines_of(tmp_path / "run.log")

    return run


def lines_of(path):
    return path.read_text("utf-8").splitlines() if path.exists() else []


# -- lines -------------------------------------------------------------------------------------------------


def assembled(chunks):
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.rest()


def cut(data, places):
    places = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"\xc3\xa9", b"\r", b"\n", b"\xff", b"\x1b[31m"])),
    st.lists(st.integers(0)),
)
def test_lines_do_not_depend_on_how_they_arrive(parts, places):
    """However the bytes are cut, the lines are the same."""
    data = b"".join(parts)
    assert assembled(cut(data, places)) == assembled([data])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r\x1b", exclude_categories=["Cs"]), max_size=50))
)
def test_plain_lines_are_kept(texts):
    """Text comes back line by line as it was."""
    assert assembled(["".join(text + "\n" for text in texts).encode()]) == texts


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"\r10%\r100%\r\n", ["100%"]),
        (b"dos\r\nunix\n", ["dos", "unix"]),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\n", ["red x"]),
        (b"bad \xff\xfe\n", ["bad \\xff\\xfe"]),
        (b"no end", ["no end"]),
    ],
)
def test_lines_read_like_the_console(data, lines):
    """Last state of a progress bar, no colours, any bytes."""
    assert assembled([data]) == lines


def test_endless_line_does_not_fill_memory():
    """A line without an end is written in pieces, and not within a character."""
    found = assembled(["é".encode() * LONGEST])
    assert "".join(found) == "é" * LONGEST
    assert max(map(len, found)) <= LONGEST
    lines = Lines()
    for i in range(100_000):
        assert not lines.feed(b"\r%d%%" % i)
    assert lines.rest() == ["99999%"]


# -- scripts -----------------------------------------------------------------------------------------------


def test_python_c_and_children_are_heard_in_order(script):
    """Prints, C's stdio, children and raw writes: all in the log, in order, and on stdout unchanged."""
    result, lines = script("""
        print("before")
        libc.puts(b"before in C")
        with Capture(path) as heard:
            print("print")
            subprocess.run(["echo", "child"])
            libc.puts(b"C"); libc.fflush(None)
            os.write(1, b"raw \\xff\\n")
            print("error", file=sys.stderr)
            print("no end", end="")
        print("\\nafter")
        assert not heard.omissions, heard.omissions
    """)
    assert result.stdout == b"before\nbefore in C\nprint\nchild\nC\nraw \xff\nno end\nafter\n"
    assert result.stderr == b"error\n"
    assert [line for line in lines if line != "error"] == ["print", "child", "C", "raw \\xff", "no end"]
    assert "error" in lines


def test_descriptors_and_streams_are_given_back(script):
    """After the block, exception or not, all is as before: descriptors, buffering, number of open files."""
    script("""
        def state():
            standard = [(os.fstat(n).st_dev, os.fstat(n).st_ino) for n in (1, 2)]
            return standard, sys.stdout.line_buffering, vars(sys.stdout), sorted(os.listdir("/proc/self/fd"))
        before = state()
        for _ in range(3):
            with contextlib.suppress(KeyError), Capture(path):
                raise KeyError
        heard = Capture(path)
        heard.start(); heard.start(); heard.stop(); heard.stop()
        assert state() == before, (before, state())
    """)


@pytest.mark.parametrize(
    ("death", "returncode"),
    [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("libc.abort()", -signal.SIGABRT),
     ("os._exit(3)", 3), ("sys.exit(4)", 4)],
)  # fmt: skip
def test_last_words_arrive(script, death, returncode):
    """What was printed just before a crash or a kill is on the console and in the log."""
    result, lines = script(
        f"""
        Capture(path).start()
        print("line " * 1000, flush=True)
        os.write(2, b"Fatal: out of luck")
        {death}
        """,
        returncode=returncode,
    )
    assert result.stderr == b"Fatal: out of luck"
    assert sorted(lines) == ["Fatal: out of luck", "" + "line " * 1000]


def test_c_code_that_keeps_the_interpreter_does_not_hang(script):
    """More than a pipe holds, printed by C without releasing the interpreter's lock."""
    result, lines = script("""
        with Capture(path):
            ctypes.PyDLL(None).puts(b"x" * 1_000_000)
            ctypes.PyDLL(None).fflush(None)
    """)
    assert result.stdout == b"x" * 1_000_000 + b"\n"
    assert "".join(lines) == "x" * 1_000_000


def test_much_output_needs_little_memory(script):
    """100 MB pass through; the helper stays small."""
    result, lines = script(
        """
        with Capture(Path("big.log")) as heard:
            subprocess.run("yes a line of about fifty characters, or so | head -c 100000000", shell=True)
            status = Path("/proc", str(console._tap.child.pid), "status").read_text()
        assert not heard.omissions
        big = Path("big.log")
        assert big.stat().st_size >= 100_000_000
        big.unlink()
        path.write_text(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        """,
        capture_output=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert not result.stderr
    assert int(lines[0]) < 60_000  # kB


def test_child_that_outlives_the_block_is_not_waited_for(script):
    """A background process keeps its console, and does not keep us."""
    result, lines = script("""
        with Capture(path) as heard:
            late = "import sys; print('early', flush=True); sys.stdin.read(); print('late')"
            child = subprocess.Popen([sys.executable, "-c", late], stdin=subprocess.PIPE)
            while not path.read_text():
                time.sleep(0.01)
        assert not heard.omissions
        child.communicate()
        print("end")
    """)
    assert lines == ["early"]
    assert sorted(result.stdout.split()) == [b"early", b"end", b"late"]


def test_forked_child_does_not_end_the_capture(script):
    """A forked process that leaves the block leaves it to its parent."""
    _, lines = script("""
        with Capture(path) as heard:
            if (pid := os.fork()) == 0:
                print("child")
                heard.stop()
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(pid, 0)
            print("parent")
        assert not heard.omissions
    """)
    assert lines == ["child", "parent"]


def test_captures_may_overlap_in_any_order(tmp_path, script):
    """Each hears what is said while it lasts, and the last one to end gives the console back."""
    result, lines = script("""
        a, b, c = (Capture(Path(name)) for name in ("run.log", "b.log", "c.log"))
        a.start(); print("1")
        b.start(); print("2")
        c.start(); print("3")
        a.stop(); print("4")
        c.stop(); print("5")
        b.stop(); print("6")
        assert not sys.modules["runctx.capture.console"]._tap.captures
        assert not (a.omissions or b.omissions or c.omissions)
    """)
    assert sorted(result.stdout.split()) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert lines == ["1", "2", "3"]
    assert lines_of(tmp_path / "b.log") == ["2", "3", "4", "5"]
    assert lines_of(tmp_path / "c.log") == ["3", "4"]


def test_killed_helper_does_not_kill_the_run(script):
    """Somebody kills the helper: the console is given back, which is an omission."""
    result, _ = script("""
        heard = Capture(path).start()
        tap = sys.modules["runctx.capture.console"]._tap
        tap.child.kill()
        while tap.consoles:
            time.sleep(0.01)
        print("goes on")
        heard.stop()
        assert "was killed" in heard.omissions[0].why
    """)
    assert result.stdout == b"goes on\n"


def test_our_lines_know_the_terminal(tmp_path):
    """What is captured goes through a pipe; our own lines still know that there is a terminal behind it."""
    code = HEAD + textwrap.dedent("""
        from runctx.capture.console import is_terminal
        with Capture(path):
            print(sys.stdout.isatty(), is_terminal("stdout"), flush=True)
            say("ours\\n")
    """)
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # EIO at the end
        while data := os.read(leader, 1000):
            shown += data
    os.close(leader)
    assert process.wait(10) == 0
    assert sorted(shown.split()) == sorted([b"False", b"True", b"ours"])
    assert lines_of(tmp_path / "run.log") == ["False True"]


def test_our_lines_are_shown_after_what_was_said_before_and_not_heard(script):
    """The logger's console lines come in order, and once."""
    result, lines = script(
        """
        with Capture(path):
            for i in range(20):
                print(i)
                say(f"ours {i}\\n")
        """,
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.stdout.decode().splitlines() == [text for i in range(20) for text in (str(i), f"ours {i}")]
    assert lines == [f"{i}" for i in range(20)]


def test_stuck_console_does_not_hang_us(script):
    """A console nobody reads any more: our lines and the end of the capture wait a bounded time, once."""
    script(
        """
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        heard = Capture(path).start()
        os.write(1, b"x" * 100_000)
        say("hello")
        heard.stop()
        assert "may be missing" in heard.omissions[0].why
        """
    )


def test_closed_stdout_is_no_error(script):
    """In a daemon without stdout nothing is captured, which is an omission."""
    script("""
        os.close(1)
        sys.stdout = None
        with Capture(path) as heard:
            os.write(2, b"error\\n")
        assert "Bad file descriptor" in heard.omissions[0].why
        assert not os.path.exists("/proc/self/fd/1")
    """)


def test_full_disk_loses_lines_only(script):
    """What cannot be logged is still shown, and counted."""
    result, _ = script("""
        with Capture(Path("/dev/full")) as heard:
            print("shown")
        assert heard.omissions[0].why.startswith("1 lines were not written: OSError"), heard.omissions
    """)
    assert result.stdout == b"shown\n"


def test_secrets_are_redacted_by_the_helper(script):
    """redact reaches the helper, without standing in a command line; if it cannot, nothing is heard."""
    result, lines = script("""
        from runctx.redact import Redactor
        redactor = Redactor()
        redactor.mapping({"password": "hunter22"})
        with Capture(path, redactor.text) as heard:
            print("hunter22")
            assert b"hunter22" not in b"".join(
                p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
        assert not heard.omissions
        with Capture(path, lambda text: text) as heard:
            print("hunter22")
        assert "lambda" in heard.omissions[0].why
    """)
    assert lines == ["<redacted>"]
    assert result.stdout == b"hunter22\n" * 2


# -- streams -----------------------------------------------------------------------------------------------


def test_streams_without_descriptor_are_wrapped(tmp_path, monkeypatch):
    """A stream of Python's own (as in a kernel) is heard, stays the same object, and is given back."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with Capture(tmp_path / "a.log") as first:
        print("one", "two")
        second = Capture(tmp_path / "b.log").start()
        print("three\nfour", end="")
    print(" five")
    second.stop()
    print("six")
    assert stream.getvalue() == "one two\nthree\nfour five\nsix\n"
    assert lines_of(tmp_path / "a.log") == ["one two", "three", "four"]
    assert lines_of(tmp_path / "b.log") == ["three", "four five"]
    assert not vars(stream)
    assert not first.omissions + second.omissions


def test_pytest_still_hears(tmp_path, capfd):
    """pytest's own capture of descriptors and streams goes on."""
    with Capture(tmp_path / "run.log"):
        print("print")
        os.write(1, b"raw\n")
    print("after")
    assert sorted(capfd.readouterr().out.split()) == ["after", "print", "raw"]
    assert sorted(lines_of(tmp_path / "run.log")) == ["print", "raw"]


def test_threads_print_whole_lines(tmp_path, monkeypatch):
    """Lines printed in one piece by several threads stay whole."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    def work(name):
        for _ in range(200):
            sys.stdout.write(name * 100 + "\n")

    with Capture(tmp_path / "run.log"):
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(lines_of(tmp_path / "run.log")) == ["" + n * 100 for n in "ab" for _ in range(200)]


def test_kernel_is_heard_and_still_shows(tmp_path, monkeypatch):
    """In a Jupyter kernel prints, C code and children are heard once each, over several cells, and shown."""
    import nbformat
    from nbclient import NotebookClient

    cells = [
        HEAD
        + "from runctx.capture.log import RunLog\nlog = RunLog(path, 'run'); log.activate(); heard = log.capture()",
        "print('print'); libc.puts(b'C'); libc.fflush(None); log.logger.info('logged'); time.sleep(1)",
        # the client drops what a busy kernel shows after the cell has ended
        "subprocess.run(['echo', 'child']); print('\\r10%\\r100%'); time.sleep(1)",
        "log.close(); log.deactivate(); print('after'); assert not log.omissions, log.omissions",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, ipykernel does not listen to the descriptors
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = (tmp_path / "run.log").read_text()
    heard = sorted(line for line in lines_of(tmp_path / "run.log") if "logged" not in line)
    assert heard == ["100%", "C", "child", "print"]
    assert text.count("logged") == 1
    shown = json.dumps(notebook)
    for word in ("print", "C", "child", "logged", "after"):
        assert f"{word}\\n" in shown


def test_nothing_is_left():
    """Nothing of this file leaves a capture behind."""
    assert not console._tap.captures
