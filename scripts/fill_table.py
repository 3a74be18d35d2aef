"""Puts the measured table into docs/evaluation.md, and says with which weights and settings it was made.

.venv/bin/studio evaluate animation --suite a2bench-mini --output-dir out/a2bench
.venv/bin/python scripts/fill_table.py out/a2bench/table.md
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evaluation.md"
WEIGHTS = ROOT / "models" / "weights" / "mini" / "transformer"


def main() -> None:
    table = Path(sys.argv[1]).read_text(encoding="utf-8").strip()
    files = sorted(WEIGHTS.glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    fill(PAGE, "table", f"{table}\n\nAnimator weights sha256 `{digest}`.")


def fill(page: Path, name: str, content: str) -> None:
    """Puts content between the marks of that name in a page."""
    filled, places = re.subn(
        rf"(<!-- {name}: begin .*?-->\n).*?(<!-- {name}: end -->)",
        lambda marks: f"{marks[1]}\n{content}\n\n{marks[2]}",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if places != 1:
        sys.exit(f"{page} has {places} places for the table, not one")
    page.write_text(filled, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
