# SPDX-License-Identifier: MIT
"""A stand-in for Intel graphics: what it is on paper (configs/), the process
that plays it (standin.c), and what its log says (log.py)."""
