"""The page in a real browser: nothing asked of the network, no error said, no line wider than the window, fast."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from PIL import Image

from report.sample_run import EXPERIMENT, sample_run, write_json
from report.sample_study import finding, sample_study
from torchstone import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"), pytest.mark.slow]

MEASURE = """<script>addEventListener("load", () => {
  const spared = e => e.closest(".scroll, .hidden");
  const wide = [...document.querySelectorAll("main *")].filter(e => !spared(e) && e.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage([innerWidth, document.documentElement.scrollWidth, ...wide.map(e => e.tagName + "." + e.className)].join(" "), "*");
});</script></head>"""
FRAME = """<!doctype html><script>addEventListener("message", e => { document.title = "MEASURED " + e.data + " END"; });</script>
<iframe src="measured.html" width="WIDTH" height="900" style="border:0"></iframe>"""
TIMED = """<script>addEventListener("load", () => {
  document.body.offsetHeight; document.title = "TOOK " + Math.ceil(performance.now()) + " END"; });</script>"""
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check"]
MAKERS = ("google.com", "googleapis.com", "gvt1.com")
"""Whom the browser itself calls, whatever page it shows."""


def browse(tmp_path: Path, *arguments: str) -> tuple[str, str]:
    """(stdout, stderr) of a fresh, headless browser."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            *QUIET,
            f"--user-data-dir={tmp_path / 'profile'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


LONG = ["a class with quite a long name of many words", "Donaudampfschifffahrtsgesellschaftskapitänsmütze", *"cdefghijk"]


def a_run(folder: Path) -> Path:
    run = sample_run(folder / "run", classes=LONG)
    curve = {"kind": "curve", "x": "depth", "y": "norm", "lines": [{"name": "a long name of a line", "x": [0, 1], "y": [1.0, 2.0]}]}
    bars = {"kind": "bars", "labels": LONG, "values": list(range(len(LONG)))}
    table = {"kind": "table", "columns": LONG[:6], "rows": [LONG[:6]] * 3}
    found = [finding("check", "error", LONG[1] * 3, [f"a.b={'x' * 150}"]) | {"evidence": each} for each in (curve, bars, table)]
    write_json(run / "findings.json", {"kind": "findings", "findings": found})
    return report.write(run)


def a_study(folder: Path) -> Path:
    made = sample_study(folder / "study")
    document = json.loads((made / "results.json").read_text())
    document["classes"] = LONG[:3]
    document["variants"][2]["name"] = "model.depth=34,method.batch_transforms=[flip,random_resized_crop,mixup,erase],run.batch_size=4096"
    document["variants"][4]["name"] = LONG[1]
    document["variants"][4]["effect"].update(mean=-123.4, low=-200.0, high=-50.0)
    write_json(made / "results.json", document)
    return report.write(made)


def a_few_runs(folder: Path) -> Path:
    names = ("short", "a-run-with-a-rather-long-name-of-its-own", LONG[1], "x", "y", "z")
    runs = [sample_run(folder / "runs" / name, n=200) for name in names]
    (runs[1] / "experiment.toml").write_text(EXPERIMENT.replace("lr = 0.02", "lr = 0.04").replace('"ema"\ndecay', '"swa"\nstart'))
    path = folder / "side-by-side.html"
    path.write_text(report.side_by_side.page(runs), encoding="utf-8")
    return path


@pytest.fixture(params=[a_run, a_study, a_few_runs], ids=["run", "study", "side by side"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path)


def test_it_asks_nothing_says_nothing_and_is_fast(page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    started = perf_counter()
    _, said = browse(tmp_path, "--window-size=1280,2000", f"--screenshot={tmp_path / 'page.png'}", f"--log-net-log={log}", f"file://{page}")
    assert perf_counter() - started < 60
    assert "CONSOLE" not in said, said
    asked = {
        host for host in re.findall(r'"url":"(?:https?|wss?)://([^/:"]+)', log.read_text(errors="replace")) if not host.endswith(MAKERS)
    }
    assert not asked
    assert not re.search(r"https?://", page.read_text(encoding="utf-8"))
    assert page.stat().st_size < 5_000_000
    with Image.open(tmp_path / "page.png") as shown:
        assert shown.size == (1280, 2000) and len(np.unique(np.asarray(shown.convert("L")))) > 50


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Path, tmp_path: Path, width: int) -> None:
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    (tmp_path / "measured.html").write_text(html.replace("</head>", MEASURE), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    dom, _ = browse(tmp_path, "--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom", f"file://{tmp_path}/frame.html")
    found = re.search(r"MEASURED (\d+) (\d+) ?(.*?) END", dom)
    assert found, dom[:500]
    assert (int(found[1]), int(found[2]), found[3]) == (width, width, "")


def test_it_opens_within_a_second(page: Path, tmp_path: Path) -> None:
    """By the browser's own clock: from the beginning of the navigation to the load event, laid out."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    (tmp_path / "timed.html").write_text(html.replace("</body>", TIMED + "</body>"), encoding="utf-8")
    # The script is over when the load event is, which is what the browser waits for before it writes the page out.
    dom, _ = browse(tmp_path, "--window-size=400,900", "--timeout=8000", "--dump-dom", f"file://{tmp_path}/timed.html")
    found = re.search(r"<title>TOOK (\d+) END", dom)
    assert found, dom[:300]
    assert int(found[1]) < 1000


def test_it_prints_on_a_few_pages(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.pdf"
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={out}", f"file://{page}")
    assert out.read_bytes().startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", out.read_bytes())) <= 16


def test_a_hostile_page_says_nothing_either(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", classes=[f"</td><script>console.log('run')</script>{i}" for i in range(4)])
    (run / "log.jsonl").write_text(json.dumps({"step": 1, "eval": {"<script>console.log('run')</script>": 1.0}}) + "\n")
    _, said = browse(tmp_path, "--window-size=800,600", f"--screenshot={tmp_path / 'p.png'}", f"file://{report.write(run)}")
    assert "CONSOLE" not in said, said
