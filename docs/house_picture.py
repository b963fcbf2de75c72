"""The picture of docs/architecture.md, drawn from the imports: every room on the level above all that it imports.

    python docs/house_picture.py

Writes docs/architecture.svg; tests/test_architecture.py checks that the committed one is current.
"""

import ast
from collections import defaultdict
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "finegrain"
PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, LEFT, ROW, BOX, GAP, LETTER = 820, 16, 54, 34, 10, 8.4


def rooms() -> dict[str, set[str]]:
    """The rooms (folders and files of the package) and the rooms that each imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        found[room] |= set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("finegrain"):
                inside = str(node.module).split(".")[1:]
                found[room] |= {inside[0]} if inside else {alias.name for alias in node.names}
    return {room: {other for other in others if other in found and other != room} for room, others in found.items()}


def levels(imports: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by level, the lowest first: one above the highest that a room imports."""
    level: dict[str, int] = {}
    while len(level) < len(imports):
        ready = [room for room in imports if room not in level and imports[room] <= level.keys()]
        assert ready, f"a circle among {sorted(imports.keys() - level.keys())}"
        level |= {room: 1 + max((level[other] for other in imports[room]), default=-1) for room in ready}
    return [sorted(room for room in level if level[room] == height) for height in range(max(level.values()) + 1)]


def drawing(imports: dict[str, set[str]]) -> str:
    """The picture as SVG, what people call at the top, what everything stands on at the bottom."""
    floors = levels(imports)
    height = LEFT * 2 + ROW * len(floors)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="14">',
        "<title>Rooms of finegrain: each imports only rooms below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, floor in enumerate(reversed(floors)):
        top = LEFT + ROW * number
        parts.append(f'<line x1="{LEFT}" y1="{top + BOX + 10}" x2="{WIDTH - LEFT}" y2="{top + BOX + 10}" stroke="#d8dee6"/>')
        left = float(LEFT)
        for room in floor:
            folder = (SOURCE / room).is_dir()
            width = len(room) * LETTER + 24
            fill, stroke = ("#e8f0fa", "#3b6ea8") if folder else ("#f6f6f4", "#9a9a94")
            parts.append(f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{BOX}" rx="5" fill="{fill}" stroke="{stroke}"/>')
            parts.append(f'<text x="{left + width / 2:.0f}" y="{top + 22}" text-anchor="middle" fill="#1d2733">{escape(room)}</text>')
            left += width + GAP
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawing(rooms()))
    print(PICTURE)
