"""The page of a folder, written into it."""

from pathlib import Path

from torchstone.core.files import write_text
from torchstone.report.page import page as page_of_run
from torchstone.report.study import is_study
from torchstone.report.study import page as page_of_study

REPORT = "report.html"


def write(folder: Path) -> Path:
    """Makes `folder`/report.html of a run or of a study, replacing the one that may be there; returns its path.

    Raises UserError for a folder that is neither, OSError where the disk does.
    """
    path = folder / REPORT
    write_text(path, page_of_study(folder) if is_study(folder) else page_of_run(folder))
    return path
