"""The command line: `optogram` and its commands, most built from a technique's signature."""

from optogram.cli.program import main as main
