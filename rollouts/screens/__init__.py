"""Screens of a graphical user interface with exact ground truth, drawn with Pillow alone.

    from rollouts.screens.screen import make_screen
    from rollouts.screens.instructions import instructions

    screen = make_screen(7)               # elements with their boxes; nothing is drawn yet
    image = screen.render()               # a PIL image, the same bytes for the same seed
    for instruction in instructions(screen): ...

Layout and drawing are apart: laying out takes a millisecond, so that splits, tests and searches for a certain kind of
screen need no pixels.
"""
