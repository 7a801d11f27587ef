"""What did the run say? Promises of `runctx.capture.log`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import logging.config
import multiprocessing
import os
import pickle
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from runctx.capture.log import RunLog
from runctx.errors import SettingsError

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| ([A-Z]+) +\| (\S*:\S*:\d+) - (.*)")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def new_log(tmp_path):
    """Makes active logs without console, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(name="run", active=True, console=False, **options):
            log = RunLog(tmp_path / f"{name}.log", name, console=console, **options)
            stack.callback(log.close)
            if active:
                log.activate()
            return log

        yield make


@pytest.fixture(autouse=True)
def unchanged_loggers():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logger.configure(handlers=[])


def said(log: RunLog) -> list[str]:
    return [match[3] for line in log.path.read_text("utf-8").splitlines() if (match := LINE.fullmatch(line))]


def python(code: str, *arguments: object, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


# -- the logger --------------------------------------------------------------------------------------------


def test_line_says_when_how_where_what(new_log):
    """A line has time, level, place and message."""
    log = new_log()
    log.logger.info("x {} {b}", 1, b=2)
    match = LINE.fullmatch(log.path.read_text("utf-8").rstrip("\n"))
    assert match[1] == "INFO"
    assert match[2].split(":")[1] == "test_line_says_when_how_where_what"
    assert match[3] == "x 1 2"


def test_file_has_debug_console_has_info(new_log):
    """The file gets DEBUG and up, whatever the console is told to show."""
    log = new_log(console=True, level="WARNING")
    with contextlib.redirect_stderr(io.StringIO()) as console:
        for name in ("trace", "debug", "info", "warning"):
            getattr(log.logger, name)(name)
    assert said(log) == ["debug", "info", "warning"]
    assert console.getvalue().endswith(" - warning\n")
    assert len(console.getvalue().splitlines()) == 1


def test_exception_is_shown_whole_without_values(new_log):
    """A traceback shows every frame, and no local value."""
    log = new_log()

    def fail(secret):
        raise ValueError(len(secret))

    try:
        fail("hunter22")
    except ValueError:
        log.logger.exception("failed")
        log.logger.opt(exception=True).info("again")
    text = log.path.read_text("utf-8")
    assert text.count("ValueError: 8") == 2
    assert "in fail" in text
    assert "hunter22" not in text.replace('fail("hunter22")', "")


def test_loguru_api_works(new_log):
    """bind, contextualize, patch, custom levels and several lines in one message work as in loguru."""
    log = new_log()
    log.logger.bind(task="a").info("one")
    with log.logger.contextualize(task="b"):
        log.logger.info("two")
    log.logger.patch(lambda record: record.update(message="patched")).info("three")
    with contextlib.suppress(ValueError, TypeError):
        logger.level("NOTICE", no=25, color="<blue>")
    log.logger.log("NOTICE", "four")
    log.logger.info("five <red> {x}")
    assert said(log) == ["[a] one", "[b] two", "patched", "four", "five <red> {x}"]


@settings(max_examples=50, deadline=None)
@given(message=st.text(st.characters(), max_size=200))
def test_any_text_can_be_logged(message, tmp_path_factory):
    """No text, lone surrogates included, is an error, and none is lost."""
    path = tmp_path_factory.mktemp("log") / "run.log"
    log = RunLog(path, "run", console=False)
    log.logger.info(message)
    log.close()
    assert message.encode("utf-8", "backslashreplace") in path.read_bytes()
    assert not log.omissions


def test_unknown_level_is_an_error(tmp_path):
    """A misspelt level is said at once, with those there are."""
    with pytest.raises(SettingsError, match=r"(?s)'LOUD'.*hint: .*INFO"):
        RunLog(tmp_path / "run.log", "run", level="LOUD")


def test_warn_goes_to_file_and_console(new_log):
    """Our own warnings are in the file and on the console, and name who warned; braces are just braces."""
    log = new_log(console=True)
    with contextlib.redirect_stderr(io.StringIO()) as console:
        log.warn("left out: {x}")
    assert console.getvalue() == log.path.read_text("utf-8")
    assert "| WARNING  | " in console.getvalue()
    assert "| runctx - left out" in console.getvalue()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_console_is_coloured_on_a_terminal_only(new_log, monkeypatch, no_color):
    """Colour on a terminal, unless NO_COLOR is set; never in the file."""
    monkeypatch.setenv("NO_COLOR", no_color)
    log = new_log(console=True)
    leader, follower = pty.openpty()
    with open(follower, "w") as terminal, contextlib.redirect_stderr(terminal):
        log.logger.info("hello")
        shown = os.read(leader, 10_000)
    os.close(leader)
    assert (b"\x1b[" in shown) is not bool(no_color)
    assert shown.count(b"hello") == 1
    assert "\x1b" not in log.path.read_text("utf-8")


BARS = """
import sys
from tqdm import tqdm
from runctx import Run

with Run(stage="bars", save_dir=sys.argv[1], capture="capture" in sys.argv) as run:
    for epoch in tqdm(range(2), desc="epochs", mininterval=0, ncols=60):
        for batch in tqdm(range(2), desc="batches", mininterval=0, ncols=60, leave=False):
            run.logger.info("ours {} {}", epoch, batch)
"""


@pytest.mark.parametrize("capture", ["", "capture"])
@pytest.mark.parametrize("terminal", [True, False])
def test_lines_do_not_land_behind_a_bar(tmp_path, terminal, capture):
    """A bar of tqdm makes room for each line of ours, and is drawn again below it."""
    command = [sys.executable, "-c", BARS, str(tmp_path / "run"), capture]
    if terminal:
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, 80))
        subprocess.run(command, stderr=follower, timeout=60, check=True, env={**os.environ, "NO_COLOR": "1"})
        os.close(follower)
        data = b""
        with contextlib.suppress(OSError):  # how a terminal says that it has ended
            while more := os.read(leader, 100_000):
                data += more
        os.close(leader)
    else:
        data = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=True).stderr
    lines = data.decode().replace("\r\n", "\n").split("\n")
    ours = [line for line in lines if "ours" in line]
    assert len(ours) == 4
    for line in ours:
        before, _, own = line.rpartition("\r")
        assert re.match(r"(\x1b\[A)?\d{4}-", own) and before.endswith(" " * 20), line
    assert sum("epochs" in line for line in lines[lines.index(ours[0]) :]) > 3


@pytest.mark.parametrize("explicit", [False, True])
def test_lines_of_filelock_are_not_ours_to_show(tmp_path, explicit):
    """A program that logs at DEBUG hears nothing of our locks, unless it asks for them by name."""
    code = f"""
        import logging, sys
        from loguru import logger
        if {explicit}: logging.getLogger("filelock").setLevel(logging.DEBUG)
        class Intercept(logging.Handler):
            def emit(self, record): logger.log(record.levelname, record.name + " " + record.getMessage())
        logging.basicConfig(level=logging.DEBUG, handlers=[Intercept(), logging.StreamHandler()])
        from runctx import Run
        with Run(save_dir=sys.argv[1]) as run:
            logging.debug("of the user")
        with Run(save_dir=sys.argv[1]): pass
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = done.stderr + (tmp_path / "run/run.log").read_text()
    assert ("acquire lock" in told) is explicit and "of the user" in told


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO())])
def test_broken_console_is_ignored(new_log, monkeypatch, stream):
    """No console, or a closed one, costs nothing."""
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log = new_log(console=True)
    log.logger.info("hello")
    assert said(log) == ["hello"]


def test_stderr_that_is_a_logger_is_no_loop(new_log, monkeypatch):
    """A stand-in for stderr that logs what is written to it does not send our lines back."""
    log = new_log(console=True)

    class ToLogger(io.StringIO):
        def write(self, text):
            log.logger.info("echo {}", text)
            logger.info("echo {}", text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", ToLogger())
    log.logger.info("hello")
    assert said(log) == ["hello"]


# -- whose line is it --------------------------------------------------------------------------------------


def test_runs_in_threads_do_not_mix(new_log):
    """Two runs in two threads: each log has its own lines only, whichever logger said them."""
    both = threading.Barrier(2, timeout=10)

    def work(name):
        log = new_log(name, active=False)
        log.activate()
        both.wait()
        for i in range(50):
            log.logger.info(f"{name} own {i}")
            logger.info(f"{name} global {i}")
            logging.getLogger("lib").warning(f"{name} std {i}")
        both.wait()
        log.deactivate()
        return log

    with ThreadPoolExecutor(2) as pool:
        for log in pool.map(work, "ab"):
            assert len(said(log)) == 150
            assert all(line.startswith(log.run_id) for line in said(log))


def test_runs_in_tasks_do_not_mix(new_log):
    """The same for two asyncio tasks of one thread."""

    async def work(name):
        log = new_log(name, active=False)
        log.activate()
        for i in range(20):
            logger.info(f"{name} {i}")
            await asyncio.sleep(0)
        log.deactivate()
        return log

    async def main():
        return await asyncio.gather(work("a"), work("b"))

    for log in asyncio.run(main()):
        assert said(log) == [f"{log.run_id} {i}" for i in range(20)]


def speak_in_new_thread(text):
    thread = threading.Thread(target=lambda: logger.info(text), name="other")
    with contextlib.suppress(AttributeError, TypeError):
        thread._context = contextvars.Context()
    thread.start()
    thread.join()


def test_line_of_a_new_thread_goes_to_the_only_run(new_log):
    """A thread knows nothing of the run; with one run there is no doubt."""
    log = new_log()
    speak_in_new_thread("hello")
    assert said(log) == ["hello"]


def test_line_of_a_new_thread_goes_to_all_runs_marked(new_log):
    """With several, each gets it, marked."""
    logs = [new_log("a"), new_log("b")]
    speak_in_new_thread("hello")
    assert [said(log) for log in logs] == [["[unattributed] hello"]] * 2


def test_inner_run_is_the_current_one(new_log):
    """A run within a run gets the lines until it ends; then the outer one again."""
    outer = new_log("outer")
    logger.info("1")
    inner = new_log("inner")
    logger.info("2")
    outer.logger.info("3")
    inner.deactivate()
    logger.info("4")
    assert said(outer) == ["1", "3", "4"]
    assert said(inner) == ["2"]


def test_run_can_end_in_another_context(new_log):
    """Entered in one notebook cell and left in another, each with a context of its own."""
    log = new_log(active=False)
    cell1, cell2 = contextvars.copy_context(), contextvars.copy_context()
    cell1.run(log.activate)
    cell2.run(logger.info, "from the second cell")
    cell2.run(log.deactivate)
    cell1.run(logger.info, "too late")
    assert said(log) == ["from the second cell"]


def test_run_activated_twice_ends_once(new_log):
    """A thread that joins a run and leaves it does not end it for the others."""
    log = new_log()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(log.activate).result()
        pool.submit(log.deactivate).result()
    logger.info("hello")
    assert said(log) == ["hello"]


# -- other loggers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meddle",
    [
        lambda log: logger.remove(),
        lambda log: logger.configure(handlers=[{"sink": io.StringIO()}]),
        lambda log: log.logger.remove(),
        lambda log: [logger.remove(), logger.add(io.StringIO(), level="INFO"), logger.remove()],
    ],
)
def test_remove_takes_nothing_away(new_log, meddle):
    """The user may remove all handlers before, during and after the run: all is logged, nothing raises."""
    with contextlib.suppress(ValueError):
        logger.remove(0)
    log = new_log()
    meddle(log)
    log.logger.info("own")
    logger.info("global")
    meddle(log)
    log.logger.info("own")
    logger.info("global")
    log.close()
    meddle(log)
    logger.info("after")
    assert said(log) == ["own", "global"] * 2


def test_standard_logging_joins_and_stays_as_it_is():
    """Last resort, basicConfig, dictConfig, levels work as without us; and all that is said is in the log."""
    code = """if True:
        import logging, logging.config, sys
        from pathlib import Path
        from runctx.capture.log import RunLog
        log = RunLog(Path(sys.argv[1]), "run"); log.activate()
        logging.getLogger("lib").warning("last resort")
        logging.getLogger("lib").info("held back")
        assert not logging.getLogger().handlers and logging.getLogger().level == logging.WARNING
        logging.basicConfig(level=logging.DEBUG, format="USER %(message)s")
        logging.info("configured"); logging.debug("too low for us")
        config = {"version": 1, "root": {"level": "INFO"}, "disable_existing_loggers": False}
        logging.config.dictConfig(config)
        logging.getLogger("lib").propagate = False
        logging.getLogger("lib").addHandler(logging.NullHandler())
        logging.getLogger("lib").error("alone")
        try: 1 / 0
        except ZeroDivisionError: logging.getLogger("lib").exception("failed")
        logging.info("%d", "wrong")
        log.close()
    """
    with tempfile.TemporaryDirectory() as folder:
        result = python(code, Path(folder, "run.log"))
        text = Path(folder, "run.log").read_text("utf-8")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("last resort\nUSER configured\nUSER too low for us\n")
    messages = [m[3] for line in text.splitlines() if (m := LINE.fullmatch(line))]
    assert messages == ["last resort", "configured", "alone", "failed"]
    assert "ZeroDivisionError" in text


class InterceptHandler(logging.Handler):
    """The usual way to lead logging to loguru."""

    def emit(self, record):
        frame, depth = sys._getframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(record.levelname, record.getMessage())


def test_logging_led_to_loguru_is_heard_once(new_log):
    """With an InterceptHandler each record is in the log once, and the user's line still names the caller."""
    log = new_log()
    users = io.StringIO()
    logger.add(users, format="{function} {message}")
    logging.basicConfig(handlers=[InterceptHandler()], level=0, force=True)
    for _ in range(2):
        logging.getLogger("lib").warning("hello")
    logger.info("hello")
    assert said(log) == ["hello"] * 3
    assert users.getvalue() == "test_logging_led_to_loguru_is_heard_once hello\n" * 3


def test_loguru_led_to_logging_is_heard_once(new_log):
    """With a handler that propagates loguru's lines to logging each is in the log once."""

    class PropagateHandler(logging.Handler):
        def emit(self, record):
            logging.getLogger(record.name).handle(record)

    log = new_log()
    logger.add(PropagateHandler(), format="{message}")
    logger.warning("hello")
    logging.getLogger("lib").warning("direct", extra={"extra": {}})
    assert said(log) == ["hello", "direct"]


def test_handlers_are_added_once(new_log):
    """A second run adds no handler, to whichever logger."""
    new_log("a").logger.info("x")
    before = repr(logger), repr(new_log("b").logger)
    new_log("c").logger.info("x")
    assert (repr(logger), repr(new_log("d").logger)) == before


def test_import_is_light():
    """Loguru is loaded by the first log, not by the import."""
    result = python("import sys, runctx.capture.log; print('loguru' in sys.modules, 'ctypes' in sys.modules)")
    assert result.stdout == "False False\n", result.stderr


# -- other processes ---------------------------------------------------------------------------------------


def write_many(speak, name):
    for i in range(200):
        speak.info("{} {} {}", name, i, name * 3000)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_the_log(new_log, method, monkeypatch):
    """Forked and fresh processes append whole lines through the pickled logger."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    log = new_log()
    context = multiprocessing.get_context(method)
    if method == "spawn":
        code = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
        job = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(2)]
        for name, process in zip("ab", job, strict=True):
            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            process.stdin.write(cloudpickle.dumps(partial(write_many, log.logger, name)))
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
            process.stdin.close()
        codes = [process.wait(60) for process in job]
    else:
        job = [context.Process(target=write_many, args=(log.logger, name)) for name in "ab"]
        for process in job:
            process.start()
        for process in job:
            process.join(60)
        codes = [process.exitcode for process in job]
    assert codes == [0, 0]
    lines = said(log)
    assert len(lines) == 400
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [
            f"{name} {i} {name * 3000}" for i in range(200)
        ]


def test_pickled_logger_is_the_same_run_here(new_log):
    """Pickled and loaded in the same process, or copied, the logger writes to the same log."""
    log = new_log()
    pickle.loads(pickle.dumps(log.logger)).info("pickle")
    shout = cloudpickle.loads(cloudpickle.dumps(lambda: log.logger.bind(x=1).info("closure")))
    shout()
    assert said(log) == ["pickle", "closure"]


def test_a_worker_serves_many_runs(tmp_path):
    """A process that logs for many runs, one after the other, keeps no files open."""
    logs = [RunLog(tmp_path / f"{n}.log", str(n), console=False) for n in range(50)]
    pickled = [pickle.dumps(log.logger) for log in logs]
    for log in logs:
        log.close()
    code = """if True:
        import gc, os, pickle, sys
        before = len(os.listdir("/proc/self/fd"))
        for logger in pickle.load(sys.stdin.buffer):
            pickle.loads(logger).info("served")
        gc.collect()
        sys.exit(len(os.listdir("/proc/self/fd")) - before)
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    job = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(job, input=pickle.dumps(pickled), env=environ, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert all("served" in log.path.read_text() for log in logs)


def test_killed_process_loses_no_line(tmp_path):
    """After kill -9 every line that was said is there."""
    code = """if True:
        import os, signal, sys, logging
        from pathlib import Path
        from loguru import logger
        from runctx.capture.log import RunLog
        log = RunLog(Path(sys.argv[1]), "run", console=False); log.activate()
        for i in range(500): log.logger.info("own {}", i)
        logger.info("global"); logging.warning("std")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = python(code, tmp_path / "run.log")
    assert result.returncode == -signal.SIGKILL
    lines = (tmp_path / "run.log").read_text("utf-8").splitlines()
    assert len(lines) == 502


def test_signal_handler_may_log(tmp_path):
    """A line said by a signal's handler, in the middle of another line, is not lost."""
    code = """if True:
        import signal, sys
        from pathlib import Path
        from runctx.capture.log import RunLog
        log = RunLog(Path(sys.argv[1]), "run", console=False); log.activate()
        heard = 0
        def handler(*_):
            global heard
            heard += 1
            log.logger.info("signal")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while heard < 300: log.logger.info("main")
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(heard)
    """
    result = python(code, tmp_path / "run.log")
    assert not result.stderr
    assert (tmp_path / "run.log").read_text("utf-8").count("- signal\n") == int(result.stdout)


# -- trouble -----------------------------------------------------------------------------------------------


def hide(text: str) -> str:
    return text.replace("hunter22", "<redacted>")


def test_secrets_are_redacted_everywhere(new_log):
    """File, console, tracebacks, other loggers: no line with a secret."""
    log = new_log(console=True, redact=hide)
    with contextlib.redirect_stderr(io.StringIO()) as console:
        log.logger.info("password hunter22")
        with contextlib.suppress(ValueError), log.logger.catch(reraise=True):
            raise ValueError("hunter22")
    logger.info("hunter22")
    logging.getLogger("lib").warning("hunter22")
    assert log.path.read_text("utf-8").count("<redacted>") >= 4
    assert "hunter22" not in log.path.read_text("utf-8") + console.getvalue()


def test_failing_redact_withholds_the_line(new_log):
    """When redact fails the line is not written, which is said."""

    def fail(text):
        raise RuntimeError("no")

    log = new_log(redact=fail)
    log.logger.info("hunter22")
    assert "hunter22" not in log.path.read_text("utf-8")
    assert "RuntimeError: no" in log.omissions[0].why


def test_full_disk_is_said_once(tmp_path):
    """On a full disk the run goes on: one warning on the console, and the number of lost lines."""
    log = RunLog(Path("/dev/full"), "run")
    with contextlib.redirect_stderr(io.StringIO()) as console:
        for i in range(3):
            log.logger.info("line {}", i)
    log.close()
    assert console.getvalue().count("cannot write") == 1
    assert console.getvalue().count(" - line") == 3
    [omission] = log.omissions
    assert omission.why.startswith("3 lines were not written: OSError: [Errno 28]")


def test_deleted_folder_is_noticed(new_log):
    """Lines into a deleted file are not silently lost."""
    log = new_log()
    log.logger.info("one")
    shutil.rmtree(log.path.parent)
    log.logger.info("two")
    assert log.omissions[0].why == "1 lines were not written: FileNotFoundError: the file was deleted"


def test_folder_that_never_was_is_an_omission(tmp_path):
    """No file: no exception either."""
    log = RunLog(tmp_path / "missing" / "run.log", "run", console=False)
    log.activate()
    log.logger.info("hello")
    log.close()
    assert "No such file" in log.omissions[0].why


def test_closed_log_is_silent(new_log):
    """After close nothing is written, nothing raises, and closing again is nothing."""
    log = new_log()
    log.logger.info("one")
    log.close()
    log.logger.info("two")
    log.close()
    assert said(log) == ["one"]
    assert not log.omissions
