"""Which of these changes helps, by how much, at what cost: studies of many runs and the statistics over them.

compare       `compare`: a study from its words to its results
definition    what a study is: study.toml, read and written, and the shorter file a person writes
factors       places in the tree and the values they take
design        which combinations of values are trained
estimate      before anything is spent: runs, time, the smallest effect to be seen
reading       what the finished runs say
results       results.json
costs         costs.json
statistics    the mean difference, its intervals and its p
power         what could have been seen
divergence    runs that diverged, as an outcome of their own
verdicts      from numbers to words
interactions  whether one change depends on another, in a grid
sequential    seed after seed until every variant is decided
calibration   what p is worth when it is looked at after every seed
"""
