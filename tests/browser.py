"""What a page looks like in headless Chromium, where there is one."""

import json
import os
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

#: What a test does on the page and reads from it: everything unfolded, every heading pressed by the keyboard's click.
PROBE = """
<script>
for (const folded of document.querySelectorAll("details")) folded.open = true;
const found = {window: innerWidth, page: document.documentElement.scrollWidth, sorted: []};
found.bars = [...document.querySelectorAll(".wide")].map(box => box.offsetHeight - box.clientHeight);
found.background = getComputedStyle(document.body).backgroundColor;
for (const button of document.querySelectorAll("th button")) {
  const table = button.closest("table"), header = button.closest("th");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[header.cellIndex].textContent);
  const seen = [];
  for (let press = 0; press < 2; press++) {
    button.focus();
    document.activeElement.click();
    seen.push([header.getAttribute("aria-sort"), column()]);
  }
  found.sorted.push([table.querySelectorAll("[aria-sort]").length, ...seen]);
}
const output = document.createElement("pre");
output.id = "found";
output.textContent = JSON.stringify(found);
parent.document.body.append(output);
</script>
"""


def look(path: Path, width: int = 1280, dark: bool = False) -> tuple[dict[str, Any], list[str]]:
    """What the probe found on a page, and what stood on the console."""
    assert CHROMIUM is not None
    inner = escape(path.read_text().replace("</body>", f"{PROBE}</body>"))
    outer = path.with_suffix(".probed.html")  # a window is never narrower than 500 pixels, a frame is
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{inner}"></iframe>'
    outer.write_text(f"<!DOCTYPE html><html><body>{frame}</body></html>")
    options = ["--window-size=1400,900", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    options += ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *options, profile, outer.as_uri()]
    env = os.environ | {"HOME": str(path.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=env)
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(found), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
