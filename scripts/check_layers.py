#!/usr/bin/env python3
"""Holds the includes of the C++ code against the table under "Layers" in ARCHITECTURE.md.

    scripts/check_layers.py [FOLDER]      FOLDER: the root of the source tree, by default that of this script

Rules:
 1. A room includes only itself and rooms on lower lines of the table; rooms on one line do not see each other.
 2. include/lanner/x.h belongs to room x (exceptions: PUBLIC_HEADER_ROOMS).
 3. A folder under src/ that is not in the table is an error, and so is an included file that does not exist.
 4. The files of a room include each other without a cycle.
 5. Some headers are one room's own (OWNED_HEADERS).
 6. No file over 600 lines, no folder called utils, at most 14 rooms.
Tests, fuzzers and benchmarks (x_test.cpp, ...) may include any room; rule 6 holds for them too.

Prints each violation as file:line: message and exits with 1 if there is one.
"""

import pathlib
import re
import sys

# Public headers that do not bear the name of a room.
PUBLIC_HEADER_ROOMS = {"status.h": "core", "version.h": "core", "options.h": "engine"}

# Headers that only one room may include: what they match, the room, and what they are.
OWNED_HEADERS = [
    (re.compile(r"(^|/)lanner_text\.h$"), "text", "the Rust crate's header"),
    (re.compile(r"(^|/)nccl(_net)?\.h$"), "comm", "NCCL"),
    (re.compile(r"^cuda(_\w+)?\.h$"), "ops", "CUDA"),
]

LINE_LIMIT = 600
ROOM_LIMIT = 14
BANNED_FOLDERS = {"util", "utils"}
CPP_SUFFIXES = {".h", ".hpp", ".cpp", ".cc", ".c", ".cu", ".cuh"}
COUNTED_SUFFIXES = CPP_SUFFIXES | {".rs", ".py", ".sh", ".cmake"}
SKIPPED_FOLDERS = {"target", "__pycache__"}  # what cargo and Python write
EXEMPT_STEM = re.compile(r"_(test|fuzz|fuzzer|bench)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


class Tree:
    """The source tree: its files, whose room each is, and what was found wrong."""

    def __init__(self, root):
        self.root = root
        self.violations = []
        self.layer_of = self.read_table(root / "ARCHITECTURE.md")
        self.files = [path for top in ("src", "include", "python/bindings", "scripts") for path in walk(root / top)]

    def report(self, path, line, message):
        name = path.relative_to(self.root) if path.is_absolute() else path
        self.violations.append((str(name), line, message))

    def read_table(self, path):
        """Room to layer number, out of the first code block below the heading "Layers"."""
        layer_of = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            self.report(path, 1, f"cannot be read: {error.strerror}")
            return layer_of
        heading = fences = 0
        for number, line in enumerate(lines, 1):
            if line.startswith("```"):
                fences += heading > 0
                if fences == 2:
                    break
            elif heading and fences == 1:
                layer, *rooms = line.split() or [""]
                if not layer.isdigit() or not rooms:
                    self.report(path, number, "a line of the layer table is a number and the rooms on it")
                    continue
                for room in rooms:
                    if room in layer_of:
                        self.report(path, number, f"room {room} stands in the layer table twice")
                    layer_of.setdefault(room, int(layer))
            elif not heading and re.match(r"#+ .*\blayers\b", line, re.IGNORECASE):
                heading = number
        if not layer_of:
            self.report(path, max(heading, 1), 'no layer table: a code block below a heading "Layers" is expected')
        return layer_of

    def room_of(self, path):
        """The room a file belongs to, or None for files outside all rooms."""
        parts = path.relative_to(self.root).parts
        if parts[0] == "src":
            return parts[1] if len(parts) > 2 else None
        if parts[:2] == ("include", "lanner") and len(parts) == 3:
            return PUBLIC_HEADER_ROOMS.get(parts[2], pathlib.Path(parts[2]).stem)
        if parts[:2] == ("python", "bindings"):
            return "python/bindings"
        return None

    def resolve(self, includer, quote, name):
        """The file of this tree that an include means, or None."""
        places = [self.root / "src", self.root / "include"]
        if quote == '"':
            places.insert(0, includer.parent)
        for place in places:
            path = (place / name).resolve()
            if path.is_file() and path.is_relative_to(self.root):
                return path
        return None


def walk(folder):
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name not in SKIPPED_FOLDERS:
            yield from walk(path)
        elif path.is_file():
            yield path


def includes_of(path):
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1], match[2]


def check_rooms_are_known(tree):
    source = tree.root / "src"
    rooms = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    for room in rooms:
        if room.name not in tree.layer_of:
            tree.report(room, 1, f"room {room.name} is not in the layer table of ARCHITECTURE.md")
    if len(rooms) > ROOM_LIMIT:
        tree.report(source, 1, f"{len(rooms)} rooms; at most {ROOM_LIMIT} keep the whole in view")
    for path in tree.files:
        if path.relative_to(tree.root).parts[:2] == ("include", "lanner") and tree.room_of(path) not in tree.layer_of:
            tree.report(path, 1, "this public header belongs to no room: name one in PUBLIC_HEADER_ROOMS")


def check_include(tree, path, number, quote, name):
    """Rules 1, 3 and 5 for one include; returns the included file if it is in the same room."""
    room = tree.room_of(path)
    for pattern, owner, what in OWNED_HEADERS:
        if pattern.search(name) and room != owner:
            tree.report(path, number, f"includes {name} ({what}), which only room {owner} may")
    included = tree.resolve(path, quote, name)
    if included is None:
        if name.split("/")[0] in tree.layer_of | {"lanner": 0} and "/" in name:
            tree.report(path, number, f"includes {name}, which does not exist")
        return None
    target = tree.room_of(included)
    if target == room:
        return included
    if target not in tree.layer_of or room not in tree.layer_of:
        return None  # reported once, by check_rooms_are_known
    if tree.layer_of[target] >= tree.layer_of[room]:
        tree.report(
            path,
            number,
            f"room {room} (layer {tree.layer_of[room]}) includes {name} of room {target} "
            f"(layer {tree.layer_of[target]}): a room sees only lower layers",
        )
    return None


def check_includes(tree):
    edges = {}  # file -> {file of the same room: line of the include}
    for path in tree.files:
        if path.suffix not in CPP_SUFFIXES or tree.room_of(path) is None or EXEMPT_STEM.search(path.stem):
            continue
        for number, quote, name in includes_of(path):
            if included := check_include(tree, path, number, quote, name):
                edges.setdefault(path, {})[included] = number
    check_cycles(tree, edges)


def check_cycles(tree, edges):
    """Depth-first search; an edge back into the path being walked closes a cycle."""
    done = set()
    on_path = []

    def visit(path):
        on_path.append(path)
        for included, number in edges.get(path, {}).items():
            if included in on_path:
                cycle = on_path[on_path.index(included) :] + [included]
                names = " -> ".join(str(step.relative_to(tree.root)) for step in cycle)
                tree.report(path, number, f"include cycle: {names}")
            elif included not in done:
                visit(included)
        on_path.pop()
        done.add(path)

    for path in sorted(edges):
        if path not in done:
            visit(path)


def check_sizes_and_names(tree):
    folders = set()
    for path in tree.files:
        relative = path.relative_to(tree.root)
        folders.update(relative.parents)
        if path.suffix in COUNTED_SUFFIXES:
            lines = len(path.read_bytes().splitlines())
            if lines > LINE_LIMIT:
                tree.report(path, LINE_LIMIT + 1, f"{lines} lines; the limit is {LINE_LIMIT}: split it by subject")
    for folder in sorted(folders):
        if folder.name in BANNED_FOLDERS:
            tree.report(folder, 1, f"a folder called {folder.name} gathers what has no place: name it by its subject")


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).parent.parent).resolve()
    tree = Tree(root)
    if tree.layer_of:
        check_rooms_are_known(tree)
        check_includes(tree)
    check_sizes_and_names(tree)
    for name, line, message in sorted(tree.violations):
        print(f"{name}:{line}: {message}")
    if tree.violations:
        print(f"layers: {len(tree.violations)} violations", file=sys.stderr)
        return 1
    print(f"layers: {len(tree.layer_of)} rooms, {len(tree.files)} files, no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
