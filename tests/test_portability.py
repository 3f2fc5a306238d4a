"""What other systems lack is not used without a look at whether it is there; texts state UTF-8."""

from __future__ import annotations

import ast
import ntpath
import re
from pathlib import Path

import cascade

PACKAGE = Path(cascade.__file__).parent
TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
POSIX_FUNCTIONS = {  # of `os`, which Windows lacks in some supported version of Python
    "O_DIRECTORY", "O_NOFOLLOW", "WNOHANG", "chown", "fchmod", "fchown", "fork", "forkpty",
    "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "initgroups", "killpg",
    "lchown", "lockf", "mkfifo", "mknod", "nice", "openpty", "posix_fadvise", "posix_fallocate",
    "pread", "pwrite", "sched_getaffinity", "sendfile", "setgid", "setpgid", "setsid", "setuid",
    "statvfs", "sync", "sysconf", "uname", "wait3", "wait4",
}  # fmt: skip


def guarded(tree: ast.AST) -> set[ast.AST]:
    """All nodes in a `try` that catches a missing module or attribute."""
    nodes: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            caught = " ".join(ast.unparse(each.type) for each in node.handlers if each.type)
            if "ImportError" in caught or "AttributeError" in caught:
                nodes |= {inner for each in node.body for inner in ast.walk(each)}
    return nodes


def test_modules_of_posix_alone_are_imported_only_where_they_may_be_missing():
    faults = []
    for path, tree in TREES.items():
        safe = guarded(tree)
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if POSIX_MODULES & set(modules) and node not in safe:
                faults.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert faults == []


def test_functions_of_posix_alone_are_called_only_where_they_may_be_missing():
    faults = []
    for path, tree in TREES.items():
        safe = guarded(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or ast.unparse(node.value) != "os":
                continue
            is_checked = node in safe or f'hasattr(os, "{node.attr}")' in TEXTS[path]
            if node.attr in POSIX_FUNCTIONS and not is_checked:
                faults.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert faults == []


def test_text_files_state_their_encoding():
    calls = [
        (path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    faults = []
    for path, node in calls:
        name = ast.unparse(node.func)
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
        opens_text = name.endswith(".open") and re.fullmatch(r"[rwax]\+?", str(first))
        is_text = opens_text or name.endswith((".read_text", ".write_text"))
        has_encoding = any(each.arg == "encoding" for each in node.keywords)
        if is_text and not has_encoding and first != "direct_url.json":  # importlib knows its own
            faults.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert faults == []


def test_names_of_the_package_differ_by_more_than_case_and_suit_windows():
    paths = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*")]
    assert len({path.casefold() for path in paths}) == len(paths)
    assert not any(re.search(r'[<>:"|?*\\]|[. ]$', ntpath.basename(path)) for path in paths)
