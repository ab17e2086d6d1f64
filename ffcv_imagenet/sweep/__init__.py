"""Many runs from one command: every combination of the swept options, side by side on this machine's devices.

``plan`` turns the command line into runs, ``devices`` cuts the machine into slots, ``processes`` starts, recognises
and ends a run's processes, ``scheduler`` keeps the slots busy, ``view`` shows it. ``jobs`` is what they share.
"""
