"""The command line: options, help, parser.

Only the standard library: the man page is made from it where nothing else is installed.
"""
