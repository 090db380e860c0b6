"""Kestrel beside its peers, in one run, as ratios of medians. `./dev bench` runs all; `./dev bench run exec` some.

Absolute times say more about the machine than about the programs, so none is asserted anywhere and none is worth
quoting alone. Each row measures every program in turn, round after round, so that a slow minute hits all alike.
"""
