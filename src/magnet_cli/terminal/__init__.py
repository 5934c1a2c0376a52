"""What commands are made of: console, signals, help, options as Typer takes them, the configuration file."""
