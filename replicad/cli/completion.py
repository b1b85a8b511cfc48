"""``replicad-cli completion``: click's own scripts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from replicad.cli.options import Session, epilog, output_option
from replicad.cli.output import Output

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog=epilog(
        """\
Examples:
  replicad-cli completion bash > ~/.local/share/bash-completion/completions/replicad-cli
  replicad-cli completion zsh > ~/.zfunc/_replicad-cli         # ~/.zfunc in $fpath
  replicad-cli completion fish > ~/.config/fish/completions/replicad-cli.fish
  eval "$(replicad-cli completion bash)"                       # for this shell only"""
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@output_option
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    root = ctx.find_root()
    kind = get_completion_class(shell)
    if kind is None or root.info_name is None:
        raise click.UsageError(f"this release of click completes nothing for {shell}")
    variable = f"_{root.info_name}_COMPLETE".replace("-", "_").upper()  # the one that click looks for
    # Not source(): that runs the shell to check its version, and there need be none where the script is made.
    completer = kind(root.command, {}, root.info_name, variable)
    script = completer.source_template % completer.source_vars()
    output = Output(ctx.ensure_object(Session))
    if output.json:
        output.show("", {"shell": shell, "script": script})
    else:
        output.write(script)
