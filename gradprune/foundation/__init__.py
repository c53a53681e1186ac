"""What everything stands on: checks of arguments, files, tables of text, progress."""
