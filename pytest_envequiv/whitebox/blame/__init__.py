"""Which of the target's lines explains a divergence: changes of its traced program are replayed on diverging rows.

``trial`` holds the program and its rows; ``edits``, ``terms``, ``brackets``, ``calls``, ``arguments`` and ``names`` are
the kinds of slips that are tried, ``unwritten`` those that leave no operation; ``solving`` finds the numbers they need;
``ranking`` puts the lines in order.
"""
