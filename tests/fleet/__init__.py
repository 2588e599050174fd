# SPDX-License-Identifier: MIT
"""Machines on paper, and Monocle's own start over each of them.

    paper.py    a .fleet file: what is there
    judge.py    a start on it: what came of it, and whether that holds
    fleet.py    `make fleet`: all of them, against what is expected
"""
