"""The report: a run, several runs or a study as one self-contained HTML page. It imports no torch, so that it is there in a blink.

    report.write(Path("runs/digits/run"))      # runs/digits/run/report.html
    report.write(Path("studies/x"))            # studies/x/report.html
    report.side_by_side.page([one, another])   # as text

reading      the small files of the run, each value checked before it is believed
curves       the log, thinned while it is read        charts       scales, ticks and paths of a line chart
headline     what was trained, on what, how it did    classes      confusion matrix, per-class table
calibration  the reliability diagram                  pictures     mistakes and augmented samples
experiment   the tree with its edits                  facts        data, speed trial, environment, commands
numbers      how a number is written                  findings     what the doctor saw in a run
examination  a page of the doctor's own
page         all of a run                             rendering    plain data through templates/
written      the page of a run or a study, into its folder

study        all of a study                           study_reading  its files, each value checked
forest       effects on one scale, verdicts           tradeoff       cost against gain
bands        curves over seeds                        per_class      what a variant does to each class
side_by_side several runs: trees, results, curves

figure       curves of a part or a test, as data      terminal  drawn in characters      svg, drawings  as files

Only the templates know HTML. What Python hands them is plain data, and every text in it is escaped there.
"""

from torchstone.report import side_by_side, study
from torchstone.report.page import page
from torchstone.report.written import write

__all__ = ["page", "side_by_side", "study", "write"]
