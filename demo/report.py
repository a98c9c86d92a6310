"""Prints the demo's table and timeline."""


def table(rows):
    """Two columns, aligned."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def at(changes, moment, before=None):
    """The value that held at a moment, of (moment, value) pairs in order."""
    for when, value in changes:
        if when > moment:
            break
        before = value
    return before


def timeline(depth, desired, ready, marks, step=5.0):
    """A line every few seconds: queue depth as a bar, replicas as dots (filled: ready).

    `depth`, `desired` and `ready` are (seconds since the start, value); `marks` are (seconds, text).
    """
    if not depth:
        return "  (no samples)"
    end = max(depth[-1][0], desired[-1][0] if desired else 0)
    most = max(max(value for _, value in depth), 1)
    lines, moment = ["  seconds  running + waiting              replicas"], 0.0
    while moment <= end + step:
        queue = at(depth, moment, 0)
        have, want = at(ready, moment, 0) or 0, at(desired, moment, 0) or 0
        bar = "█" * round(24 * queue / most)
        dots = "●" * min(have, want) + "○" * max(want - have, 0)
        notes = ", ".join(text for when, text in marks if moment - step < when <= moment)
        lines.append(f"  {moment:6.0f}   {bar:<24} {queue:3.0f}   {dots:<5} {notes}".rstrip())
        moment += step
    return "\n".join(lines)
