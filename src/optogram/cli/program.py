"""`optogram`, the program: its commands, its help, and how it ends."""

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from optogram.cli import catalogue
from optogram.cli.commands import COMMANDS
from optogram.cli.manners import ending, quiet, unbroken
from optogram.cli.options import DEBUG, DEBUGGING
from optogram.version import __version__

ABOUT = """See what the units of a trained network respond to, and which pixels made it say so.

A NET is a name from 'optogram networks', torchvision:NAME, timm:NAME or FILE.py:FUNCTION. A UNIT is
layer:17, layer:17@3,5, layer:17@strongest or output:LABEL; layer, layer:0-9 and 'conv*:*' are many
units. An IMAGE is a file, or digits:3, number 3 of a data set.
"""

EXAMPLES = """\b
Examples:
  optogram layers mnist-mlp
  optogram maximize mnist-mlp output:7 fc7:1 -o sheet.png
  optogram saliency mnist-mlp digits:3 output:3 -o why.png
  optogram replay why.png
"""


class Program(click.Group):
    """A group whose commands are those of this room and one for each technique there is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command by name."""
        return sorted({*self.commands, *catalogue.ours(), *catalogue.added()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command that knows what it is for; `resolve_command` makes the one that can be run."""
        known = catalogue.ours() | catalogue.added()
        if cmd_name in known and cmd_name not in self.commands:
            return click.Command(cmd_name, help=known[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What was asked for; a technique's command is built from its signature now."""
        name = args[0]
        if name not in self.commands and (name in catalogue.ours() or catalogue.added()):
            with unbroken():
                from optogram.cli.signature import command_of

                found = command_of(name)
            if found:
                return name, found, args[1:]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            raise click.NoSuchCommand(name, possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The techniques, and then the commands that are about them."""
        others = {name: c.get_short_help_str(100) for name, c in sorted(self.commands.items())}
        techniques = catalogue.ours() | catalogue.added()
        for title, rows in (("Techniques", techniques), ("Other commands", others)):
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run what was asked for; whatever goes wrong becomes a sentence and an exit code."""
        with quiet():
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except (Exception, KeyboardInterrupt) as problem:
                if ctx.meta.get(DEBUGGING):
                    traceback.print_exc()
                raise ending(problem) from problem

    def main(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> Any:
        """Run the program, then leave Python with the exit code."""
        more |= {"standalone_mode": False, "prog_name": "optogram"}
        try:
            code = super().main(args, *others, **more)
        except (click.ClickException, click.Abort) as problem:
            end = ending(problem)
            click.echo(f"optogram: {end.format_message()}", err=True)
            sys.exit(end.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=Program,
    help=ABOUT,
    epilog=EXAMPLES,
    commands=COMMANDS,
    params=[DEBUG],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="optogram %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """The program without a command explains itself."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
