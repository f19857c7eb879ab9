"""The report: a run folder as one self-contained HTML page. It imports no torch, so that it is there in a blink.

    report.write(Path("runs/digits/run"))      # runs/digits/run/report.html

reading      the small files of the run, each value checked before it is believed
curves       the log, thinned while it is read        charts       scales, ticks and paths of a line chart
headline     what was trained, on what, how it did    classes      confusion matrix, per-class table
calibration  the reliability diagram                  pictures     mistakes and augmented samples
experiment   the tree with its edits                  facts        data, speed trial, environment, commands
numbers      how a number is written                  page         all of it, through templates/

figure       curves of a part or a test, as data      terminal  drawn in characters      svg, drawings  as files

Only the templates know HTML. What Python hands them is plain data, and every text in it is escaped there.
"""

from torchstone.report.page import page, write

__all__ = ["page", "write"]
