"""The commands of the command line, one a module: ``gradprune bench lenet`` is ``bench_lenet.py``.

``add`` declares the options of a command, ``run`` does its work. What commands share is in
``options.py``, ``files.py`` and ``training.py``.
"""
