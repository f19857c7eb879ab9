"""What is wrong with an experiment, or with a run: findings with a number, a threshold and its reason, evidence, and a remedy to paste.

finding  Finding, Examination: what a doctor says; findings.json
examine  `examine`: the checks before training, on an experiment's data and a copy of its model
before   those checks
during   judgment of what the probes collected in a run (`during.judge`)
"""

from torchstone.doctor.before import CHECKS
from torchstone.doctor.examine import examine
from torchstone.doctor.finding import Checked, Examination, Finding, read_findings, write_findings

__all__ = ["CHECKS", "Checked", "Examination", "Finding", "examine", "read_findings", "write_findings"]
