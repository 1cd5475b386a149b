"""Fuzzing: inputs that nobody would write, against the parsers and against a whole hub.

``make fuzz`` runs ``tests.fuzz.run``; ``test_fuzz.py`` is its short form in ``make test``. A target
is a function that takes bytes and raises if the code under test does what it must not;
``targets.py`` lists them. Each has inputs to begin with in ``corpus/``, words in ``dictionaries/``,
and what was once found in ``regressions/``. ``worker.py`` runs one target for some time, guided by
coverage where atheris is installed. ``hub.py`` attacks a hub in a process of its own.
"""
