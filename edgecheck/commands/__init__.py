"""The subcommands of ``edgecheck``: one module each, with `add`, which adds its parser."""
